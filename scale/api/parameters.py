"""Query parameters: each is known, of its type and comes as often as it may, or it is 400."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import unquote_to_bytes

from django.utils import timezone
from django.utils.dateparse import parse_datetime
from rest_framework.request import Request

from scale.api.renderers import BIGGEST_INTEGER
from scale.core.errors import InvalidInput
from scale.job.lists import reverse

_MOST_PARAMETERS: Final = 1000
_LONGEST_VALUE: Final = 1000
_BIGGEST_PAGE: Final = 2**31 - 1
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,20}\Z", re.ASCII)
# ISO 8601 durations of fixed length: days to seconds; months and years have none.
_DURATION: Final = re.compile(
    r"P(?:(?P<weeks>\d{1,6})W)?(?:(?P<days>\d{1,6})D)?"
    r"(?:T(?:(?P<hours>\d{1,9})H)?(?:(?P<minutes>\d{1,9})M)?(?:(?P<seconds>\d{1,9}(?:\.\d{1,6})?)S)?)?\Z",
    re.ASCII,
)
_TRUE: Final = frozenset({"true", "t", "1"})
_FALSE: Final = frozenset({"false", "f", "0"})


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list."""

    number: int
    size: int


@dataclass(frozen=True, slots=True)
class Asked:
    """How a list is to be answered.

    `cursor` is None for pages, "" to begin a walk. `walk` is whether the order is one of those in
    which lists are walked. `fields` are the names of those that are wanted.
    """

    page: Page
    cursor: str | None
    order: list[str]
    walk: bool
    fields: list[str]


class Query:
    """The parameters of one request; `done` refuses those that nobody asked for."""

    def __init__(self, request: Request) -> None:
        self._asked: set[str] = set()
        self._given: dict[str, list[str]] = {}
        for name, value in _pairs(request.META.get("QUERY_STRING", "")):
            self._given.setdefault(name, []).append(value)

    def texts(self, name: str) -> list[str]:
        """Return all values of a parameter that may come several times."""
        self._asked.add(name)
        return self._given.get(name, [])

    def text(self, name: str) -> str | None:
        values = self.texts(name)
        if len(values) > 1:
            raise InvalidInput(name, "comes more than once")
        return values[0] if values else None

    def integers(self, name: str) -> list[int]:
        return [_integer(name, text) for text in self.texts(name)]

    def integer(self, name: str, *, default: int, least: int, most: int) -> int:
        text = self.text(name)
        if text is None:
            return default
        value = _integer(name, text)
        if not least <= value <= most:
            raise InvalidInput(name, f"must be from {least} to {most}")
        return value

    def boolean(self, name: str, *, default: bool) -> bool:
        text = self.text(name)
        if text is None:
            return default
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise InvalidInput(name, "must be true or false")

    def maybe_boolean(self, name: str) -> bool | None:
        """Return a truth value, None if it was not given."""
        return None if self.text(name) is None else self.boolean(name, default=False)

    def choices(self, name: str, known: Collection[str]) -> list[str]:
        values = self.texts(name)
        for value in values:
            _known(name, value, known)
        return values

    def choice(self, name: str, known: Collection[str]) -> str | None:
        value = self.text(name)
        if value is not None:
            _known(name, value, known)
        return value

    def order(self, fields: Mapping[str, str], default: Iterable[str]) -> list[str]:
        """Return what to order by, as Django wants it; ends with the id, so that pages are stable.

        `fields` maps the names of the interface to those of the model. The id goes the way of the
        field before it, so that the opposite order is the same rows backwards.
        """
        order = []
        for text in self.texts("order"):
            field = fields.get(text.removeprefix("-"))
            if field is None:
                raise InvalidInput("order", f"there is no field {text[:80]!r} to order by")
            order.append("-" + field if text.startswith("-") else field)
        return with_id(order or default)

    def period(self) -> tuple[datetime | None, datetime | None]:
        """Return the times that `started` and `ended` mean; None where the list has no end."""
        return period_of(self.text("started"), self.text("ended"), timezone.now())

    def recently(self, default: str) -> tuple[datetime, datetime | None]:
        """Return a period as `period`; it has a beginning, `default` if none is given."""
        started, ended = self.text("started"), self.text("ended")
        first, last = period_of(default if started is None else started, ended, timezone.now())
        assert first is not None
        return first, last

    def page(self) -> Page:
        return Page(
            number=self.integer("page", default=1, least=1, most=_BIGGEST_PAGE),
            size=self.integer("page_size", default=100, least=1, most=1000),
        )

    def asked(
        self, order_fields: Mapping[str, str], default: Iterable[str], fields: Sequence[str]
    ) -> Asked:
        """Read the parameters of lists: `fields` are the names of the fields of an item."""
        order, usual = self.order(order_fields, default), with_id(default)
        return Asked(
            page=self.page(),
            cursor=self._cursor(),
            order=order,
            walk=order in (usual, reverse(usual), ["id"], ["-id"]),
            fields=self.fields(fields),
        )

    def fields(self, known: Sequence[str]) -> list[str]:
        """Return the wanted fields in their own order; all if none are named."""
        given = self.texts("fields")
        wanted = {name for text in given for name in text.split(",")}
        for name in sorted(wanted - set(known)):
            raise InvalidInput("fields", f"there is no field {name[:80]!r}")
        return [name for name in known if name in wanted or not given]

    def _cursor(self) -> str | None:
        cursor = self.text("cursor")
        if cursor is not None and self.texts("page"):
            raise InvalidInput("cursor", "cannot go together with page")
        return cursor

    def done(self) -> None:
        unknown = sorted(set(self._given) - self._asked)
        if unknown:
            raise InvalidInput(unknown[0][:80], "is not a parameter here")


def with_id(order: Iterable[str]) -> list[str]:
    """Return an order of which no two rows are equal."""
    names = list(order)
    if {"id", "-id"} & set(names):
        return names
    return [*names, "-id" if names and names[-1].startswith("-") else "id"]


def period_of(
    started: str | None, ended: str | None, now: datetime
) -> tuple[datetime | None, datetime | None]:
    """Return the times that two texts mean; raises InvalidInput if they are none, or no period."""
    first, last = _instant("started", started, now), _instant("ended", ended, now)
    if first is not None and first == (last or now):
        raise InvalidInput("started", "must not be the same as ended")
    if first is not None and first > (last or now):
        raise InvalidInput("started", "must be before ended")
    return first, last


def _pairs(query: str) -> list[tuple[str, str]]:
    """Split a query string as WSGI gives it: bytes that look like latin-1."""
    parts = [part for part in query.encode("latin-1").split(b"&") if part]
    if len(parts) > _MOST_PARAMETERS:
        raise InvalidInput("query", f"has more than {_MOST_PARAMETERS} parameters")
    pairs = []
    for part in parts:
        raw_name, _, raw_value = part.replace(b"+", b" ").partition(b"=")
        name = unquote_to_bytes(raw_name).decode(errors="replace")
        try:
            value = unquote_to_bytes(raw_value).decode()
        except UnicodeDecodeError:
            raise InvalidInput(name[:80], "is not UTF-8") from None
        if "\0" in name + value:
            raise InvalidInput(name.replace("\0", "?")[:80], "must not have a NUL character")
        if len(value) > _LONGEST_VALUE:
            raise InvalidInput(name[:80], f"has more than {_LONGEST_VALUE} characters")
        pairs.append((name, value))
    return pairs


def _integer(name: str, text: str) -> int:
    if not _INTEGER.match(text):
        raise InvalidInput(name, "must be a whole number")
    value = int(text)
    if abs(value) > BIGGEST_INTEGER:
        raise InvalidInput(name, "has more than 64 bits")
    return value


def _known(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise InvalidInput(name, f"must be one of {', '.join(known)}")


def _instant(name: str, text: str | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    if text.startswith("P"):
        return _before(name, text, now)
    try:
        # A plus sign that was not escaped arrives as a space.
        at = parse_datetime(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        at = None
    if at is None:
        raise InvalidInput(name, "must be a time like 2015-01-01T00:00:00Z or PT3H0M0S")
    if at.tzinfo is None:
        raise InvalidInput(name, "must have a time zone, such as Z")
    try:
        return at.astimezone(timezone.get_default_timezone())
    except OverflowError:
        raise InvalidInput(name, "is not within the years that we know") from None


def _before(name: str, text: str, now: datetime) -> datetime:
    match = _DURATION.match(text)
    parts = {unit: float(n) for unit, n in match.groupdict().items() if n} if match else {}
    if not parts or text.endswith("T"):
        raise InvalidInput(name, "must be a duration of days to seconds, such as PT3H0M0S")
    try:
        return now - timedelta(**parts)
    except OverflowError:
        raise InvalidInput(name, "is too long ago") from None
