"""The command line of a job: a template in which every input becomes exactly one shell word.

The line is `command`, a space and the filled `command_arguments`, run by `/bin/sh -c`. That shell
is dash, bash or busybox, as the agent or the image has it. Quoting a value is safe only where each
of them reads an unquoted word, so a placeholder anywhere else is refused when the job type is made,
never escaped when a job runs. Safety at a place depends only on the text to its left: the reader
follows quotes and escapes, and where it meets a construct whose end it cannot find for every shell
(a trap) it allows no placeholder any more.

What a program does with a word is its author's business: `eval ${x}` runs what was submitted.
"""

import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from scale.core.errors import InvalidInput

#: The folder for the results, always known; no input may be called so.
OUTPUT_DIR: Final = "job_output_dir"
FIELD: Final = "command_arguments"

_PLACEHOLDER: Final = re.compile(
    r"\$\{(?:(?P<flag>[A-Za-z0-9_=./,@%+ -]*):)?(?P<name>[A-Za-z0-9 _-]+)\}"
)
_BRACES: Final = re.compile(r"\$\{[^}]*\}?")
_UNPRINTABLE: Final = re.compile(r"[^\t\n\x20-\x7e\x80-\ud7ff\ue000-\U0010ffff]")

# The inside of double quotes as far as nothing is nested in it. A backslash before a newline
# vanishes before the shell looks at what it joins, so it counts as nested.
_DOUBLE: Final = r'"(?:[^"\\`$]|\\[^\n]|\$(?![({\[]))*'
_TOKEN: Final = re.compile(
    rf"""
    (?P<single> '[^']*' )
  | (?P<double> {_DOUBLE}(?:"|(?P<inside>\$\{{[^}}]*\}}?)) )
  | (?P<placeholder> {_BRACES.pattern} )
  | (?P<trap>
        {_DOUBLE}(?:`|\$[(\[]|\\\n)   # a command or a sum inside double quotes
      | ` | <<                        # old command substitution; here-document
      | \#                            # a comment, unless it is within a word
      | \$\[ | \$?\(\(  | \[\[        # arithmetic, also bash's; it evaluates its words again
      | =\( | (?<=\w)\[               # a bash array; its subscripts are arithmetic
      | \$'                           # one string in bash, `$` and a string in dash
      | (?<=[^ \t\n])\\\n )           # joins what stands on both sides
  | (?P<escaped> \\. )
  | (?P<text> [^'"\\] )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Placeholder:
    """`${name}` or `${flag:name}`: the flag goes directly before the value, and with it."""

    name: str
    flag: str = ""

    def fill(self, value: str | None) -> str:
        """Return the flag and the value as one shell word; nothing if there is no value."""
        if value is None:
            return ""
        if _has_no_bytes(value):
            raise InvalidInput(self.name, "has a character that no command line can carry")
        quoted = shlex.quote(value)
        # Quoted even where it need not be: a bare 2 before > is a descriptor, a bare a=b may be
        # an assignment, a bare `if` the start of one.
        return self.flag + (quoted if quoted != value else f"'{value}'")


@dataclass(frozen=True, slots=True)
class Template:
    """Command arguments with the places for values; `parse` makes it."""

    parts: tuple[str | Placeholder, ...]

    @property
    def names(self) -> frozenset[str]:
        """What it asks for, `job_output_dir` included."""
        return frozenset(part.name for part in self.parts if isinstance(part, Placeholder))

    def fill(self, values: Mapping[str, str | None]) -> str:
        """Return the arguments for `/bin/sh -c`; what has no value, or None, vanishes.

        The value of a file is its path, of several files their folder.

        Raises:
            InvalidInput: a value has a NUL or is not valid Unicode; the field is the input's name.
        """
        return "".join(
            part if isinstance(part, str) else part.fill(values.get(part.name))
            for part in self.parts
        )


def parse(command_arguments: str, names: Collection[str], *, command: str = "") -> Template:
    """Read the arguments of a job type whose inputs are `names`.

    `command` is what the line begins with: it must not leave a quote open.

    Raises:
        InvalidInput: with the field `command_arguments` or `command`, and what to write instead.
    """
    known = frozenset(names) | {OUTPUT_DIR}
    trap = _trap_in(command)
    parts = tuple(_parts(command_arguments, known))
    template = Template(parts)
    if trap and template.names:
        raise InvalidInput("command", _after_trap("a placeholder", trap))
    return template


def _trap_in(command: str) -> str | None:
    """Return the construct of the command after which nothing may be filled in."""
    _check_characters("command", command)
    if "${" in command:
        raise InvalidInput("command", "${…} belongs in command_arguments; a variable is $NAME")
    for token in _tokens("command", command):
        if token.lastgroup == "trap":
            return token[0]
    return None


def _parts(text: str, known: Collection[str]) -> Iterator[str | Placeholder]:
    _check_characters(FIELD, text)
    done = 0
    for token in _tokens(FIELD, text):
        if token.lastgroup == "placeholder":
            placeholder = _known_at(text, token.start(), known)
            _check_neighbours(text, token)
            if done < token.start():
                yield text[done : token.start()]
            yield placeholder
            done = token.end()
        else:
            _refuse_placeholder_in(text, token, known)
    if done < len(text):
        yield text[done:]


def _tokens(field: str, text: str) -> Iterator[re.Match[str]]:
    """Yield what a shell reads one after the other, a trap last; raise if a quote stays open."""
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            what = "a backslash" if text[position] == "\\" else f"an open {text[position]}"
            raise InvalidInput(field, f"ends within {what}, which began at {text[position:][:40]}")
        yield token
        if token.lastgroup == "trap":
            return
        position = token.end()


def _refuse_placeholder_in(text: str, token: re.Match[str], known: Collection[str]) -> None:
    end = len(text) if token.lastgroup == "trap" else token.end() + 1
    at = text.find("${", token.start(), end)
    if at < 0:
        return
    _known_at(text, at, known)
    shown = _shown(text, at)
    if text[at - 1 : at] == "\\":
        raise InvalidInput(FIELD, f"{shown} comes after a backslash; take the backslash away")
    if token.lastgroup == "trap":
        raise InvalidInput(FIELD, _after_trap(shown, token[0]))
    raise InvalidInput(
        FIELD,
        f"{shown} stands inside {token.lastgroup} quotes, where a value could end them; write it"
        f" outside, such as: sh -c 'cat \"$1\"' - {shown}",
    )


def _after_trap(shown: str, trap: str) -> str:
    seen = trap[-20:].replace("\n", "⏎")
    return (
        f"{shown} comes after {seen}, where it is not certain how every shell would read it;"
        f" put that into the script of a shell of its own, such as: sh -c '… \"$1\" …' - {shown}"
    )


def _known_at(text: str, at: int, known: Collection[str]) -> Placeholder:
    found = _PLACEHOLDER.match(text, at)
    if found and found["name"] in known:
        return Placeholder(found["name"], found["flag"] or "")
    shown = _shown(text, at)
    if not shown.endswith("}"):
        raise InvalidInput(FIELD, f"{shown} has no closing brace")
    inner = shown[2:-1]
    if inner.rpartition(":")[2] in known:
        raise InvalidInput(
            FIELD, f"{shown} has a flag that is more than letters, digits, spaces and _=./,@%+-"
        )
    hint = f"${inner}" if inner.isidentifier() else "$NAME"
    raise InvalidInput(FIELD, f"{shown} is not an input; for a shell variable write {hint}")


def _check_neighbours(text: str, token: re.Match[str]) -> None:
    """Refuse what would read on into the value, or across the gap that no value leaves."""
    if text[token.start() - 1 : token.start()] == "$":
        raise InvalidInput(FIELD, f"{token[0]} comes directly after $; put a space between")
    after = text[token.end() : token.end() + 1]
    if after and after in "<([":
        raise InvalidInput(FIELD, f"{token[0]} comes directly before {after}; put a space between")


def _shown(text: str, at: int) -> str:
    found = _BRACES.match(text, at)
    return found[0] if found else "${"


def _check_characters(field: str, text: str) -> None:
    found = _UNPRINTABLE.search(text)
    if found:
        raise InvalidInput(field, f"has the character U+{ord(found[0]):04X}, which is not text")


def _has_no_bytes(value: str) -> bool:
    """Say whether an argument of a program cannot hold this."""
    return "\0" in value or any("\ud800" <= character <= "\udfff" for character in value)
