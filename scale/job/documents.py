"""The documents of a job type: its interface and its error mapping.

Sources: `docs/job-types.md`; the rules of Scale's job interface 1.0 and error mapping 1.0, with
typed properties and output patterns added.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from scale.core.command import OUTPUT_DIR, Template, parse
from scale.core.errors import InvalidInput

# \Z, for $ would let a last newline pass.
_NAME: Final = {"type": "string", "pattern": r"^[A-Za-z0-9_\- ]{1,255}\Z"}
_MEDIA_TYPE: Final = {
    "type": "string",
    "pattern": r"^[A-Za-z0-9_.+-]{1,127}/[A-Za-z0-9_.+*-]{1,127}\Z",
}
_INTERFACE: Final[Mapping[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["command"],
    "properties": {
        "version": {"const": "1.0"},
        "command": {"type": "string", "minLength": 1, "maxLength": 1000},
        "command_arguments": {"type": "string", "maxLength": 10_000},
        "input_data": {
            "type": "array",
            "maxItems": 200,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "type"],
                "properties": {
                    "name": _NAME,
                    "type": {"enum": ["property", "file", "files"]},
                    "required": {"type": "boolean"},
                    "value_type": {"enum": ["string", "number", "boolean"]},
                    "default": {"type": ["string", "number", "boolean"]},
                    "media_types": {"type": "array", "maxItems": 50, "items": _MEDIA_TYPE},
                },
            },
        },
        "output_data": {
            "type": "array",
            "maxItems": 200,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "type"],
                "properties": {
                    "name": _NAME,
                    "type": {"enum": ["file", "files"]},
                    "required": {"type": "boolean"},
                    "media_type": _MEDIA_TYPE,
                    "pattern": {"type": "string", "minLength": 1, "maxLength": 255},
                },
            },
        },
    },
}
_ERROR_MAPPING: Final[Mapping[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "version": {"const": "1.0"},
        "exit_codes": {
            "type": "object",
            "propertyNames": {"pattern": r"^(0|[1-9][0-9]{0,2})\Z"},
            "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 50},
        },
    },
}
#: The longest text that an input takes, in characters.
MAX_VALUE_LENGTH: Final = 30_000
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
#: What the command finds set, so that no input may be called so.
_VARIABLES: Final = frozenset({"SCALE_INPUT_DIR"})
_ENOUGH_ERRORS: Final = 50
_check_interface = Draft202012Validator(_INTERFACE)
_check_error_mapping = Draft202012Validator(_ERROR_MAPPING)


@dataclass(frozen=True, slots=True)
class Input:
    """An input that jobs of a type take; `default` is of `value_type`, None if there is none."""

    name: str
    type: str
    required: bool
    value_type: str
    default: str | float | bool | None

    @property
    def variable(self) -> str:
        """The environment variable that holds the value or path for the command."""
        return "SCALE_INPUT_" + re.sub(r"[^A-Z0-9]", "_", self.name.upper())


@dataclass(frozen=True, slots=True)
class Output:
    """A file, or files, that jobs of a type make; found by `pattern` or the results manifest."""

    name: str
    type: str
    required: bool
    pattern: str | None
    media_type: str | None


@dataclass(frozen=True, slots=True)
class Interface:
    """What a job type's command is and how it is fed."""

    command: str
    command_arguments: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]

    @property
    def has_steps(self) -> bool:
        """Whether files come in or go out, so that there are pre and post phases."""
        return bool(self.outputs) or any(given.type != "property" for given in self.inputs)

    def template(self) -> Template:
        """Return the parsed command arguments; raises InvalidInput as `core.command.parse` does."""
        names = [given.name for given in self.inputs]
        return parse(self.command_arguments, names, command=self.command)


def read_interface(document: Any) -> Interface:
    """Check an interface document and return what it says.

    Raises:
        InvalidInput: names the place in the document and the reason.
    """
    _conform(_check_interface, document, "interface")
    interface = stored_interface(document)
    _check_names(interface)
    for index, item in enumerate(document.get("input_data", [])):
        _check_input(item, f"interface.input_data[{index}]")
    for index, output in enumerate(interface.outputs):
        _check_pattern(output, f"interface.output_data[{index}].pattern")
    _check_command(interface)
    return interface


def stored_interface(document: Mapping[str, Any]) -> Interface:
    """Return what an interface document says that was checked when it was stored."""
    return Interface(
        command=document["command"],
        command_arguments=document.get("command_arguments", ""),
        inputs=tuple(
            Input(
                name=item["name"],
                type=item["type"],
                required=item.get("required", True),
                value_type=item.get("value_type", "string"),
                default=item.get("default"),
            )
            for item in document.get("input_data", [])
        ),
        outputs=tuple(
            Output(
                name=item["name"],
                type=item["type"],
                required=item.get("required", True),
                pattern=item.get("pattern"),
                media_type=item.get("media_type"),
            )
            for item in document.get("output_data", [])
        ),
    )


def read_error_mapping(document: Any) -> dict[int, str]:
    """Check an error mapping; return exit code -> name of an error, which may not exist.

    Raises:
        InvalidInput: names the place in the document and the reason.
    """
    _conform(_check_error_mapping, document, "error_mapping")
    mapping = stored_error_mapping(document)
    for code in mapping:
        if not 1 <= code <= 255:
            raise InvalidInput(f"error_mapping.exit_codes.{code}", "must be from 1 to 255")
    return mapping


def stored_error_mapping(document: Mapping[str, Any]) -> dict[int, str]:
    """Return what an error mapping says that was checked when it was stored."""
    return {int(code): name for code, name in document.get("exit_codes", {}).items()}


def fits(value: object, value_type: str) -> bool:
    """Return whether a JSON value is of an input's `value_type`."""
    if value_type == "boolean":
        return isinstance(value, bool)
    if value_type == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str)


def check_value(field: str, value: str | float | bool) -> None:
    """Raise InvalidInput for what no command line or no database can carry."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(field, "must be a finite number")
    if not isinstance(value, str):
        return
    if "\0" in value:
        raise InvalidInput(field, "must not have a NUL character")
    if _SURROGATE.search(value):
        raise InvalidInput(field, "has a character that is not text")
    if len(value) > MAX_VALUE_LENGTH:
        raise InvalidInput(field, f"must have at most {MAX_VALUE_LENGTH} characters")


def _conform(validator: Draft202012Validator, document: Any, root: str) -> None:
    error = best_match(_first_errors(validator, document))
    if error is None:
        return
    path = root + "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path
    )
    raise InvalidInput(path, error.message[:300])


def _first_errors(validator: Draft202012Validator, document: Any) -> Iterator[ValidationError]:
    """Yield enough to choose from: a body has room for millions, each of which takes its time."""
    for error in islice(validator.iter_errors(document), _ENOUGH_ERRORS):
        yield error
        if error.validator == "maxItems":
            return  # what is in it would be looked at, right or wrong


def _check_names(interface: Interface) -> None:
    _unique([given.name for given in interface.inputs], "interface.input_data", "name")
    _unique([made.name for made in interface.outputs], "interface.output_data", "name")
    variables = [given.variable for given in interface.inputs]
    _unique(variables, "interface.input_data", "environment variable")
    for given in interface.inputs:
        if given.name == OUTPUT_DIR or given.variable in _VARIABLES:
            raise InvalidInput("interface.input_data", f"the name {given.name} is reserved")


def _unique(names: Sequence[str], field: str, what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(field, f"the {what} {twice[0]!r} is used twice")


def _check_input(item: Mapping[str, Any], field: str) -> None:
    if item["type"] != "property":
        for key in ("default", "value_type"):
            if key in item:
                raise InvalidInput(f"{field}.{key}", "is only for inputs of type property")
    elif "media_types" in item:
        raise InvalidInput(f"{field}.media_types", "is only for inputs of type file or files")
    if "default" not in item:
        return
    value_type = item.get("value_type", "string")
    if item.get("required", True):
        raise InvalidInput(f"{field}.default", "is only for inputs with required: false")
    if not fits(item["default"], value_type):
        raise InvalidInput(f"{field}.default", f"must be a {value_type}")
    check_value(f"{field}.default", item["default"])


def _check_pattern(output: Output, field: str) -> None:
    pattern = output.pattern
    if pattern is None:
        return
    if pattern.startswith("/") or ".." in pattern.split("/") or not pattern.isprintable():
        raise InvalidInput(field, "must be a relative pattern that stays in the output folder")


def _check_command(interface: Interface) -> None:
    if not interface.command.isprintable():
        raise InvalidInput("interface.command", "must not have control characters")
    if "${" in interface.command:
        raise InvalidInput("interface.command", "inputs are for command_arguments")
    try:
        interface.template()
    except InvalidInput as error:
        raise InvalidInput(f"interface.{error.field}", error.reason) from None
