"""JSON out, fast; JSON in, strict."""

import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import IO, Any, Final
from uuid import UUID

import orjson
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.utils.functional import Promise
from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer

from scale.core.errors import InvalidInput

_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS
#: What PostgreSQL's bigint and every JSON reader can hold.
BIGGEST_INTEGER: Final = 2**63 - 1


def instant(at: datetime) -> str:
    """Return a time as the contract has it: UTC, milliseconds, Z. It must be in UTC already."""
    return at.isoformat(timespec="milliseconds")[:-6] + "Z"


def _other(value: object) -> Any:
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, date | UUID):
        return str(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Promise):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


class OrjsonRenderer(BaseRenderer):
    """Writes JSON; documents of users that orjson finds too deep take the slow way."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        if data is None:
            return b""
        try:
            return orjson.dumps(data, default=_other, option=_OPTIONS)
        except orjson.JSONEncodeError:
            return json.dumps(data, default=_other).encode()


class UnsupportedEncoding(UnsupportedMediaType):
    """The body is compressed; the header says how."""

    field = "Content-Encoding"

    def __init__(self, encoding: str) -> None:
        super().__init__(f"content encoding {encoding}"[:100])


class StrictJsonParser(BaseParser):
    """Reads JSON in UTF-8 and refuses what JSON leaves open.

    Refused are names that come twice in an object, numbers that are no finite 64-bit ones, lone
    surrogates, and NUL characters, which PostgreSQL cannot store.
    """

    media_type = "application/json"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        context = parser_context or {}
        _check_encoding(context.get("request"), media_type or "")
        return read_json(stream.read())


def read_json(body: bytes) -> Any:
    """Return what strict JSON says; raises ParseError, or InvalidInput with the place."""
    try:
        value = orjson.loads(body)
        json.loads(body, object_pairs_hook=_once, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        # RecursionError: the two readers count depth differently.
        raise ParseError(f"The body is not strict JSON: {str(error)[:200]}") from None
    if b"\\u0000" in body:
        _refuse_nul(value, "")
    return value


def _check_encoding(request: Any, media_type: str) -> None:
    if request is None:
        return
    for parameter in media_type.split(";")[1:]:
        name, _, charset = parameter.partition("=")
        if name.strip().lower() == "charset" and charset.strip(' "').lower() != "utf-8":
            raise UnsupportedMediaType(media_type)
    encoding = request.META.get("HTTP_CONTENT_ENCODING", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedEncoding(encoding)
    length = request.META.get("CONTENT_LENGTH") or "0"
    if length.isdigit() and int(length) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        raise RequestDataTooBig(
            f"The body has more than {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes."
        )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(twice[:80], "comes twice")
    return found


def _integer(text: str) -> int:
    # Twenty characters are enough for any; int() itself refuses thousands of digits.
    if len(text) > 20 or abs(int(text)) > BIGGEST_INTEGER:
        raise ValueError(f"the number {text[:40]} has more than 64 bits")
    return int(text)


def _refuse_nul(value: Any, path: str) -> None:
    if isinstance(value, str) and "\0" in value:
        raise InvalidInput(path, "must not have a NUL character")
    if isinstance(value, dict):
        for name, inner in value.items():
            where = f"{path}.{name}" if path else name
            _refuse_nul(name, where.replace("\0", "?"))
            _refuse_nul(inner, where)
    if isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_nul(inner, f"{path}[{index}]")
