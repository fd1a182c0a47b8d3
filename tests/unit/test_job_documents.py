"""What an interface and an error mapping may say, and how a refusal names the place."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from scale.core.errors import InvalidInput
from scale.job.documents import fits, read_error_mapping, read_interface, stored_interface

WORD_COUNT: dict[str, Any] = {
    "version": "1.0",
    "command": "sh",
    "command_arguments": '-c \'wc -w "$1" | tee "$SCALE_OUTPUT_DIR/count.txt"; sleep "$2"\''
    " - ${text} ${pause}",
    "input_data": [
        {"name": "text", "type": "file", "media_types": ["text/plain"]},
        {
            "name": "pause",
            "type": "property",
            "value_type": "number",
            "required": False,
            "default": 0,
        },
    ],
    "output_data": [
        {"name": "count", "type": "file", "pattern": "count.txt", "media_type": "text/plain"}
    ],
}


def changed(**fields: Any) -> dict[str, Any]:
    return {**copy.deepcopy(WORD_COUNT), **fields}


def with_input(**item: Any) -> dict[str, Any]:
    return {"command": "true", "input_data": [{"name": "x", "type": "property", **item}]}


def with_output(**item: Any) -> dict[str, Any]:
    return {"command": "true", "output_data": [{"name": "x", "type": "file", **item}]}


def test_the_word_count_example_is_read() -> None:
    interface = read_interface(WORD_COUNT)
    assert [given.name for given in interface.inputs] == ["text", "pause"]
    text, pause = interface.inputs
    assert (text.type, text.required, text.variable) == ("file", True, "SCALE_INPUT_TEXT")
    assert (pause.value_type, pause.required, pause.default) == ("number", False, 0)
    assert interface.outputs[0].pattern == "count.txt"
    assert interface.has_steps
    assert interface == stored_interface(WORD_COUNT)
    assert interface.template().names == {"text", "pause"}


@pytest.mark.parametrize(
    ("document", "has_steps"),
    [
        ({"command": "true"}, False),
        (with_input(), False),
        (with_input(type="file"), True),
        (with_input(type="files"), True),
        (with_output(), True),
    ],
)
def test_only_files_make_pre_and_post_phases(document: dict[str, Any], has_steps: bool) -> None:
    assert read_interface(document).has_steps is has_steps


@pytest.mark.parametrize(
    "document",
    [
        with_input(name="a b-c_D 9"),
        with_input(name="n" * 255),
        with_input(required=False, default="", value_type="string"),
        with_input(required=False, default=True, value_type="boolean"),
        with_input(required=False, default=-1.5, value_type="number"),
        with_output(pattern="sub/*.tif", required=False, media_type="image/*"),
        {"command": "echo", "command_arguments": "${job_output_dir}"},
    ],
)
def test_good_interfaces_are_taken(document: dict[str, Any]) -> None:
    read_interface(document)


NAMES = ["", "a/b", "a.b", "..", "ä", "a\n", "a\tb", "n" * 256, 5, None]
BAD_INTERFACES: list[tuple[str, object]] = [
    ("interface", "text"),
    ("interface", None),
    ("interface", {}),
    ("interface", changed(shared_resources=[])),
    ("interface.version", changed(version="2.0")),
    ("interface.command", changed(command="")),
    ("interface.command", changed(command=5)),
    ("interface.command", changed(command="a\nb")),
    ("interface.command", changed(command="echo ${text}")),
    ("interface.command", changed(command="sh -c '")),
    ("interface.command", changed(command='sh -c "echo', command_arguments='${text} ";"')),
    ("interface.command", changed(command="cat <<E", command_arguments="${text}")),
    ("interface.command_arguments", changed(command_arguments="'${text}'")),
    ("interface.command_arguments", changed(command_arguments="${nothing}")),
    ("interface.command_arguments", changed(command_arguments="it's")),
    ("interface.command_arguments", changed(command_arguments="\0")),
    ("interface.command_arguments", changed(command_arguments="x" * 10_001)),
    ("interface.input_data", changed(input_data={})),
    ("interface.input_data[0]", changed(input_data=[{"name": "x"}])),
    ("interface.input_data[0]", with_input(color="red")),
    ("interface.input_data[0].type", with_input(type="folder")),
    ("interface.input_data[0].required", with_input(required="yes")),
    ("interface.input_data[0].value_type", with_input(value_type="date")),
    ("interface.input_data[0].value_type", with_input(type="file", value_type="string")),
    ("interface.input_data[0].default", with_input(type="file", default="x", required=False)),
    ("interface.input_data[0].default", with_input(default="x")),
    ("interface.input_data[0].default", with_input(default=5, required=False)),
    ("interface.input_data[0].default", with_input(default=None, required=False)),
    ("interface.input_data[0].default", with_input(default="a\0b", required=False)),
    ("interface.input_data[0].default", with_input(default="\ud800", required=False)),
    (
        "interface.input_data[0].default",
        with_input(default=True, required=False, value_type="number"),
    ),
    (
        "interface.input_data[0].default",
        with_input(default=float("inf"), required=False, value_type="number"),
    ),
    ("interface.input_data[0].media_types", with_input(media_types=["text/plain"])),
    ("interface.input_data[0].media_types[0]", with_input(type="file", media_types=["text"])),
    ("interface.input_data[0].media_types[0]", with_input(type="file", media_types=["a/b\n"])),
    ("interface.input_data", with_input(name="job_output_dir")),
    ("interface.input_data", with_input(name="dir")),
    ("interface.output_data[0].type", with_output(type="property")),
    ("interface.output_data[0].pattern", with_output(pattern="/etc/passwd")),
    ("interface.output_data[0].pattern", with_output(pattern="a/../../b")),
    ("interface.output_data[0].pattern", with_output(pattern="")),
    ("interface.output_data[0].pattern", with_output(pattern="a\nb")),
    ("interface.output_data[0].media_type", with_output(media_type="text/plain\r\nX: y")),
    *[("interface.input_data[0].name", with_input(name=name)) for name in NAMES],
    *[("interface.output_data[0].name", with_output(name=name)) for name in NAMES],
]


@pytest.mark.parametrize(("field", "document"), BAD_INTERFACES)
def test_a_bad_interface_is_refused_and_the_place_named(field: str, document: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_interface(document)
    assert refused.value.field == field
    assert refused.value.reason


@pytest.mark.parametrize("key", ["input_data", "output_data"])
def test_names_are_used_once(key: str) -> None:
    item = {"name": "x", "type": "file"}
    with pytest.raises(InvalidInput, match="'x' is used twice") as refused:
        read_interface({"command": "true", key: [item, item]})
    assert refused.value.field == f"interface.{key}"


def test_names_that_share_a_variable_are_refused() -> None:
    items = [{"name": "a b", "type": "property"}, {"name": "A-b", "type": "property"}]
    with pytest.raises(InvalidInput, match="SCALE_INPUT_A_B"):
        read_interface({"command": "true", "input_data": items})


@pytest.mark.parametrize(
    ("value", "value_type", "is_one"),
    [
        ("x", "string", True),
        (5, "string", False),
        (5, "number", True),
        (5.5, "number", True),
        (True, "number", False),
        ("5", "number", False),
        (False, "boolean", True),
        (0, "boolean", False),
        (None, "string", False),
        ([], "string", False),
    ],
)
def test_values_are_of_their_type(value: object, value_type: str, is_one: bool) -> None:
    assert fits(value, value_type) is is_one


def test_an_error_mapping_is_read() -> None:
    assert read_error_mapping({"version": "1.0", "exit_codes": {"3": "bad-data"}}) == {
        3: "bad-data"
    }
    assert read_error_mapping({}) == {}


@pytest.mark.parametrize(
    ("field", "document"),
    [
        ("error_mapping", []),
        ("error_mapping", {"codes": {}}),
        ("error_mapping.version", {"version": "1.1"}),
        ("error_mapping.exit_codes", {"exit_codes": []}),
        ("error_mapping.exit_codes", {"exit_codes": {"x": "unknown"}}),
        ("error_mapping.exit_codes", {"exit_codes": {"-1": "unknown"}}),
        ("error_mapping.exit_codes", {"exit_codes": {"3\n": "unknown"}}),
        ("error_mapping.exit_codes.0", {"exit_codes": {"0": "unknown"}}),
        ("error_mapping.exit_codes.256", {"exit_codes": {"256": "unknown"}}),
        ("error_mapping.exit_codes.3", {"exit_codes": {"3": ""}}),
        ("error_mapping.exit_codes.3", {"exit_codes": {"3": 7}}),
    ],
)
def test_a_bad_error_mapping_is_refused_and_the_place_named(field: str, document: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_error_mapping(document)
    assert refused.value.field == field


def test_an_exit_code_is_named_once_however_it_is_written() -> None:
    with pytest.raises(InvalidInput, match="exit_codes"):
        read_error_mapping({"exit_codes": {"3": "unknown", "03": "timeout"}})


class Watched(list[Any]):
    """A list that knows how often it was looked at."""

    looks = 0

    def __getitem__(self, index: Any) -> Any:
        self.looks += 1
        return super().__getitem__(index)


@pytest.mark.parametrize("item", [1, {"name": "a", "type": "file"}])
def test_a_list_that_is_far_too_long_is_not_read_through(item: object) -> None:
    items = Watched([item] * 20_000)
    with pytest.raises(InvalidInput) as refused:
        read_interface({"command": "true", "input_data": items})
    assert refused.value.field == "interface.input_data"
    assert items.looks == 0
    types = Watched(["x"] * 20_000)
    given = {"name": "a", "type": "file", "media_types": types}
    with pytest.raises(InvalidInput):
        read_interface({"command": "true", "input_data": [given]})
    assert types.looks == 0


def test_of_thousands_of_errors_a_few_are_looked_at() -> None:
    looks = []

    class Codes(dict[str, str]):
        def __iter__(self) -> Iterator[str]:
            for name in super().__iter__():
                looks.append(name)
                yield name

    with pytest.raises(InvalidInput, match="exit_codes"):
        read_error_mapping({"exit_codes": Codes((f"x{n}", "unknown") for n in range(20_000))})
    assert 0 < len(looks) < 1000
