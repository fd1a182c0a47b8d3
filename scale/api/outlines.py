"""Which columns each field of a list's items is made of: what is not asked for is not read."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, NamedTuple

from scale.api import shapes
from scale.job.selectors import ERROR_BASE, JOB_TYPE_BASE

_Row = tuple[Any, ...]
_Make = Callable[[_Row], Any]
#: What an object looks like: field -> its column, another template, `Maybe` one, or None for null.
Template = Mapping[str, Any]


class Maybe(NamedTuple):
    """An object that an outer join may not find: null if the column `key` is."""

    key: str
    template: Template


@dataclass(frozen=True, slots=True)
class Outline:
    """The columns to read, and what makes an item of a row of them."""

    columns: Sequence[str]
    shape: Callable[[_Row], shapes.Shape]


@dataclass(frozen=True, slots=True)
class Item:
    """What the items of a list are; `outline` is given the names of the fields that are wanted."""

    names: Sequence[str]
    outline: Callable[[Collection[str]], Outline]


def item_of(template: Template) -> Item:
    """Return items of which only what is wanted is read."""

    def outline(names: Collection[str]) -> Outline:
        places: dict[str, int] = {}
        shape = _object({name: template[name] for name in names}, places)
        return Outline(list(places), shape)

    return Item(list(template), outline)


def item_by_shape(
    names: Sequence[str], columns: Sequence[str], shape: Callable[[_Row], shapes.Shape]
) -> Item:
    """Return items that are few: all is read, and what is not wanted left out."""

    def outline(wanted: Collection[str]) -> Outline:
        if len(wanted) == len(names):
            return Outline(columns, shape)
        return Outline(columns, lambda row: _only(shape(row), wanted))

    return Item(names, outline)


def _only(found: shapes.Shape, names: Collection[str]) -> shapes.Shape:
    return {name: found[name] for name in names}


def _object(template: Template, places: dict[str, int]) -> Callable[[_Row], shapes.Shape]:
    """Return what makes an object; `places` collects the columns, each at its place in a row."""
    columns = {name: part for name, part in template.items() if isinstance(part, str)}
    at = [places.setdefault(column, len(places)) for column in columns.values()]
    names, pick = tuple(columns), _picker(at)
    others = [
        (name, _value(part, places)) for name, part in template.items() if name not in columns
    ]

    def make(row: _Row) -> shapes.Shape:
        found = dict(zip(names, pick(row), strict=True))
        for name, value in others:
            found[name] = value(row)
        return found

    return make


def _picker(at: Sequence[int]) -> _Make:
    if not at:
        return itemgetter(slice(0))
    if list(at) == list(range(at[0], at[0] + len(at))):
        return itemgetter(slice(at[0], at[0] + len(at)))
    return itemgetter(*at)


def _value(part: Template | Maybe | None, places: dict[str, int]) -> _Make:
    if part is None:
        return lambda row: None
    if not isinstance(part, Maybe):
        return _object(part, places)
    key = places.setdefault(part.key, len(places))
    make = _object(part.template, places)
    return lambda row: None if row[key] is None else make(row)


def _same(names: Sequence[str]) -> dict[str, str]:
    return {name: name for name in names}


def _under(relation: str, names: Sequence[str]) -> dict[str, str]:
    return {name: f"{relation}__{name}" for name in names}


_EXECUTION: Final[Template] = {
    **_same(shapes.EXECUTION),
    "job": {
        "id": "job_id",
        **_under("job", ("status", "priority", "num_exes")),
        "job_type": _under("job_type", JOB_TYPE_BASE),
        "job_type_rev": {"id": "job__job_type_rev_id"},
        "event": {"id": "job__event_id"},
        "error": Maybe("job__error_id", {"id": "job__error_id"}),
    },
    "node": Maybe("node_id", _under("node", shapes.NODE_BASE)),
    "error": Maybe("error_id", _under("error", ERROR_BASE)),
}
_JOB: Final[Template] = {
    **_same(shapes.JOB),
    "job_type": _under("job_type", JOB_TYPE_BASE),
    "job_type_rev": {
        "id": "job_type_rev_id",
        "job_type": {"id": "job_type_id"},
        "revision_num": "job_type_rev__revision_num",
    },
    "event": {**_under("event", shapes.EVENT), "rule": None},
    "error": Maybe("error_id", _under("error", ERROR_BASE)),
}
_HISTORY: Final[Template] = {
    **_same(("id", "at", "event", "state", "phase", "task_id", "message")),
    "job_exe": {"id": "execution_id", "exe_num": "execution__exe_num"},
}
_REVISION: Final[Template] = {
    **_same(("id", "revision_num", "interface", "created")),
    "job_type": {"id": "job_type_id"},
}

EXECUTION: Final = item_of(_EXECUTION)
ATTEMPT: Final = item_of(
    {
        **_EXECUTION,
        **_same(("exe_num", "error_message")),
        "cluster_id": "uuid",
        "job_type": _under("job_type", JOB_TYPE_BASE),
        "input_file_size": "job__disk_in_required",
    }
)
JOB: Final = item_of(_JOB)
#: What stands for the files is the document that names them.
JOB_UPDATE: Final = item_of({**_JOB, "input_files": "data"})
#: What stands for the execution is the id of its job.
JOB_WITH_EXECUTION: Final = item_of({**_JOB, "latest_job_exe": "id"})
HISTORY: Final = item_of(_HISTORY)
REVISION: Final = item_of(_REVISION)
JOB_TYPE: Final = item_of(_same(shapes.JOB_TYPE))
ERROR: Final = item_of(_same(shapes.ERROR))
BULK_ACTION: Final = item_of(
    {**_same(shapes.BULK_ACTION), "requested_by": "requested_by__username"}
)
