import os
import shlex
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from scale.core.command import OUTPUT_DIR, Placeholder, Template, parse
from scale.core.errors import InvalidInput

# What agents and images call sh: whichever of these this machine has.
SHELLS = [path for name in ("dash", "bash", "busybox") if (path := shutil.which(name))]
VALUES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=30)
NASTY = st.sampled_from(
    [
        "",
        " ",
        "'",
        '"',
        "\\",
        "$(: >pwned)",
        "`: >pwned`",
        "*",
        "~",
        "#",
        "\n",
        "a=b",
        "-n",
        "é",
        "!",
    ]
)


def sh(line: str, folder: Path | str, shell: str = "/bin/sh", **environment: str) -> bytes:
    """Run a line as an agent does, with nothing on the PATH unless it is given."""
    environment = {"PATH": "/nowhere", "LC_ALL": "C.UTF-8"} | environment
    done = subprocess.run(
        ["sh", "-c", line],
        executable=shell,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=10,
    )
    return done.stdout


def files(folder: str) -> set[str]:
    return {each.name for each in Path(folder).iterdir()}


def refusal(arguments: str, *names: str, command: str = "") -> str:
    with pytest.raises(InvalidInput) as caught:
        parse(arguments, names, command=command)
    assert caught.value.field == ("command" if command else "command_arguments")
    return caught.value.reason


def test_the_example_of_the_issue_runs_with_a_file_whose_name_is_hostile(tmp_path: Path) -> None:
    text = tmp_path / 'it\'s $(x) "1".txt'
    text.write_text("one two three\n")
    arguments = (
        '-c \'wc -w "$1" | tee "$SCALE_OUTPUT_DIR/count.txt"; sleep "$2"\' - ${text} ${pause}'
    )
    filled = parse(arguments, ["text", "pause"], command="sh").fill(
        {"text": str(text), "pause": "0"}
    )
    sh(f"sh {filled}", tmp_path, PATH=os.environ["PATH"], SCALE_OUTPUT_DIR=str(tmp_path))
    assert (tmp_path / "count.txt").read_text().split(maxsplit=1)[0] == "3"


@settings(max_examples=25, deadline=None)
@given(st.lists(VALUES | st.lists(NASTY).map("".join), min_size=1, max_size=60))
@example(["x\ny", "'; : >pwned; '", "$(: >pwned)", "`: >pwned`", "\\", "* ?", "~", "", "\n", "2"])
def test_every_value_arrives_as_exactly_one_word(values: list[str]) -> None:
    names = [f"input {number}" for number in range(len(values))]
    template = parse("'%s\\0' " + " ".join(f"${{{name}}}" for name in names), names)
    with TemporaryDirectory() as folder:
        filled = template.fill(dict(zip(names, values, strict=True)))
        words = sh(f"printf {filled}", folder).decode().split("\0")
        assert words == [*values, ""]
        assert files(folder) == set()


CANARY = ": >pwned"
CANARIES = [
    f"'; {CANARY}; '",
    f'"; {CANARY}; "',
    f"$({CANARY})",
    f"`{CANARY}`",
    f"\n{CANARY}\n",
    f"x\n{CANARY}\n'\n{CANARY}\n\"\n{CANARY}\nx",
    f"' $({CANARY}) '",
    f"\\'; {CANARY}; \\'",
    f"a[$({CANARY})]",
    f"x; {CANARY} #",
    "2",
    "a=b",
    "x",
]
FRAGMENTS = [
    *("x", "echo", "true", ":", " ", "  ", "\n", "\t", "'", '"', "`", "\\", "$", "$x", "$1", "$?"),
    *("$(", "$((", "))", "(", ")", "((", "[", "[[", "]", "]]", "a[", "a=(", "$[", "<", ">", "<<"),
    *("<<<", "<<E", "\nE\n", "#", " #", ";", "|", "&", "&&", "=", "x=", "{", "}", "!", "case x in"),
    *(" x)", ";; esac", "\\\n", "$'", '$"', "1", "-", "é", "''", '""', "echo '", "echo "),
]
PLACEHOLDERS = ["${a}", "${a}", "${b}", "${-f:a}", "${-f :b}", "${" + OUTPUT_DIR + "}"]
TEMPLATES = st.lists(st.sampled_from(FRAGMENTS + PLACEHOLDERS * 4), min_size=1, max_size=12).map(
    "".join
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(TEMPLATES, st.sampled_from(CANARIES) | st.none(), st.sampled_from(CANARIES))
def test_no_template_that_is_accepted_lets_a_value_execute(
    arguments: str, first: str | None, second: str
) -> None:
    try:
        template = parse(arguments, ["a", "b"], command="echo")
    except InvalidInput:
        assume(False)
    assume(template.names)
    filled = template.fill({"a": first, "b": second, OUTPUT_DIR: second})
    for shell in SHELLS:
        with TemporaryDirectory() as folder:
            sh(f"echo {filled}", folder, shell)
            assert "pwned" not in files(folder), (shell, filled)


@pytest.mark.parametrize(
    ("arguments", "first", "second"),
    [
        ("'${b}'", None, f"; {CANARY} #"),
        ('"${b}"', None, f"$({CANARY})"),
        ('"$(case x in x) echo " ${b} ";; esac)"', None, f"$({CANARY})"),
        ('"$\\\n(case x in x) echo " ${b} ";; esac)"', None, f"$({CANARY})"),
        ("`echo \\${b}`", None, f"; {CANARY} #"),
        ("\\${b}", None, f"; {CANARY} #"),
        ("<<E\n${b}\nE", None, f"$({CANARY})"),
        ("<${a}<E\n${b}\nE", None, f"$({CANARY})"),
        ("# ${b}", None, f"x\n{CANARY}\n"),
        ("${a}#${b}", None, f"x\n{CANARY}\n"),
        ("$((${b}))", None, f"a[$({CANARY})]"),
        ("$(${a}(${b}))", None, f"a[$({CANARY})]"),
        ("; ((${b}))", None, f"a[$({CANARY})]"),
        ("; (${a}(${b}))", None, f"a[$({CANARY})]"),
        ("; [[ ${b} -eq 1 ]]", None, f"a[$({CANARY})]"),
        ("; [${a}[ ${b} -eq 1 ]]", None, f"a[$({CANARY})]"),
        ("$[${b}]", None, f"a[$({CANARY})]"),
        ("; a[${b}]=1", None, f"b[$({CANARY})]"),
        ("; a${a}[${b}]=1", None, f"b[$({CANARY})]"),
        ("; a=([${b}]=1)", None, f"b[$({CANARY})]"),
        ("; a=${a}([${b}]=1)", None, f"b[$({CANARY})]"),
        ("$'\\' ${b}", None, f"; {CANARY} #"),
        ("$\\\n'\\' ${b}", None, f"; {CANARY} #"),
        ("$${a} ${b}", "\\", f"; {CANARY} #"),
    ],
)
def test_every_rule_stops_a_value_that_would_execute(
    arguments: str, first: str | None, second: str
) -> None:
    naive = arguments.replace("${a}", "" if first is None else shlex.quote(first))
    naive = naive.replace("${b}", shlex.quote(second))
    executes = []
    for shell in SHELLS:
        with TemporaryDirectory() as folder:
            sh(f"echo {naive}", folder, shell)
            executes.append("pwned" in files(folder))
    assert any(executes)
    assert refusal(arguments, "a", "b")


@pytest.mark.parametrize(
    ("arguments", "filled"),
    [
        ("", ""),
        ("-x $1 $? $SCALE_OUTPUT_DIR", "-x $1 $? $SCALE_OUTPUT_DIR"),
        ('"$SCALE_OUTPUT_DIR" ${a}', "\"$SCALE_OUTPUT_DIR\" 'A'"),
        ("$(date) ${a}", "$(date) 'A'"),
        ("$(basename ${a})", "$(basename 'A')"),
        ('${a} "$(date)" `date` # it\'s', "'A' \"$(date)\" `date` # it's"),
        ("--in=${a}/x", "--in='A'/x"),
        (">${job_output_dir}/x", ">'/out'/x"),
        ("${-f:a} ${--to=:a} ${-g :a}", "-f'A' --to='A' -g 'A'"),
        ("${-f :b}|${b}|", "||"),
        ("${two words-1}", "'2'"),
        ("\\\\${a} \\'${a}", "\\\\'A' \\''A'"),
        ("a \\\n ${a}", "a \\\n 'A'"),
        ("'it'\\''s' ${a}", "'it'\\''s' 'A'"),
        ('"\\"" ${a}', '"\\"" \'A\''),
        ("[ -f ${a} ] && cat ${a}", "[ -f 'A' ] && cat 'A'"),
    ],
)
def test_what_is_filled_in(arguments: str, filled: str) -> None:
    template = parse(arguments, ["a", "b", "two words-1"])
    assert (
        template.fill({"a": "A", "b": None, "two words-1": "2", "job_output_dir": "/out"}) == filled
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ('"${a}"', "inside double quotes"),
        ("'${a}'", "inside single quotes"),
        ('"x ${a', "${a has no closing brace"),
        ("`${a}`", "${a} comes after `"),
        ("$((${a}))", "comes after $(("),
        ("((${a}))", "comes after (("),
        ("[[ ${a} -eq 1 ]]", "comes after [["),
        ("a[${a}]=1", "comes after ["),
        ("a=([${a}]=1)", "comes after =("),
        ("$[${a}]", "comes after $["),
        ("cat <<E\n${a}\nE", "comes after <<"),
        ("x # ${a}", "comes after #"),
        ("x # y\n${a}", "comes after #"),
        ('"$(x)" ${a}', 'comes after "$('),
        ('"`x`" ${a}', 'comes after "`'),
        ("$'x' ${a}", "comes after $'"),
        ("x\\\n${a}", "comes after \\⏎"),
        ("\\${a}", "after a backslash"),
        ('"\\${a}"', "after a backslash"),
        ("$${a}", "directly after $"),
        ("${a}<x", "directly before <"),
        ("${a}(", "directly before ("),
        ("${HOME}", "not an input; for a shell variable write $HOME"),
        ('"${HOME}"', "not an input; for a shell variable write $HOME"),
        ("'${x%.*}'", "${x%.*} is not an input; for a shell variable write $NAME"),
        ("${}", "${} is not an input"),
        ("${-f:z}", "${-f:z} is not an input"),
        ("${a", "${a has no closing brace"),
        ("${;:a}", "flag that is more than"),
        ("${$(x):a}", "flag that is more than"),
        ("'x", "ends within an open '"),
        ('x "y', 'ends within an open "'),
        ("x\\", "ends within a backslash"),
        ("a\0b", "U+0000"),
        ("a\x1bb", "U+001B"),
        ("a\rb", "U+000D"),
        ("a\x7fb", "U+007F"),
        ("a\ud800b", "U+D800"),
    ],
)
def test_a_template_that_could_not_be_filled_safely_is_refused(arguments: str, reason: str) -> None:
    assert reason in refusal(arguments, "a")


def test_a_refusal_says_what_to_write_instead() -> None:
    assert refusal('"${text}"', "text").endswith("such as: sh -c 'cat \"$1\"' - ${text}")


@pytest.mark.parametrize(
    ("command", "arguments", "reason"),
    [
        ('sh -c "', '" ${a}', 'open "'),
        ("true #", "${a}", "comes after #"),
        ("cat <<E", "${a}", "comes after <<"),
        ("x `y`", "${a}", "comes after `"),
        ("echo \\", "${a}", "backslash"),
        ("${a}", "", "belongs in command_arguments"),
        ("a\nb\0", "", "U+0000"),
    ],
)
def test_the_command_may_not_change_how_its_arguments_are_read(
    command: str, arguments: str, reason: str
) -> None:
    assert reason in refusal(arguments, "a", command=command)


def test_a_command_may_use_anything_if_nothing_is_filled_in() -> None:
    assert parse("x", [], command="cat <<E").fill({}) == "x"


def test_a_template_names_what_it_asks_for() -> None:
    template = parse("${b} ${-f:a} ${job_output_dir} $c", ["a", "b", "c"])
    assert template.names == {"a", "b", "job_output_dir"}
    assert template == Template(
        (
            Placeholder("b"),
            " ",
            Placeholder("a", "-f"),
            " ",
            Placeholder("job_output_dir"),
            " $c",
        )
    )


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_a_value_that_no_command_line_can_carry_is_refused_by_the_name_of_its_input(
    value: str,
) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse("${my text}", ["my text"]).fill({"my text": value})
    assert caught.value.field == "my text"


def test_reading_a_long_template_takes_time_in_proportion() -> None:
    arguments = "\"x\" 'y' ${a} \\$ $1 " * 5000
    assert parse(arguments, ["a"]).fill({"a": "1"}).count("'1'") == 5000
    assert "ends within" in refusal('"x$' * 20001, "a")
