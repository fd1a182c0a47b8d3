"""Which metrics there are: names, columns and their groups."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from django.db.models import Max, Min, Model, Sum
from django.db.models.expressions import Combinable
from django.db.models.functions import NullIf

from scale.error.models import Error
from scale.job.models import JobType
from scale.queue.models import TIMES, DailyError, DailyJobType


@dataclass(frozen=True, slots=True)
class Group:
    """Columns that belong together."""

    name: str
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class Column:
    """A measure of a day; `aggregate` says how several choices or days become one."""

    name: str
    title: str
    description: str
    units: str
    group: str
    aggregate: str

    def expression(self) -> Combinable:
        """Return what makes one value of several rows; null if none of them has one."""
        match self.aggregate:
            case "avg":
                time = self.name.removesuffix("_avg")
                # Not the average of averages: a day with more executions weighs more.
                return Sum(f"{time}_sum") / NullIf(Sum(f"{time}_count"), 0)
            case "min":
                return Min(self.name)
            case "max":
                return Max(self.name)
            case _:
                return Sum(self.name)


@dataclass(frozen=True, slots=True)
class Metric:
    """A kind of thing that is measured, by day.

    `filters` maps fields of the choices to their types; `choice` is the field of `days` that
    names what was measured.
    """

    name: str
    title: str
    description: str
    filters: Mapping[str, str]
    groups: tuple[Group, ...]
    columns: tuple[Column, ...]
    days: type[Model]
    choices: type[Model]
    choice: str


_OVERVIEW: Final = Group("overview", "Overview", "How many executions ended, and how.")
_ABOUT_TIMES: Final = {
    "queue": "from being queued to being placed on a node",
    "pre": "of the pre phase, which brings the inputs",
    "job": "of the job phase, which runs the command",
    "post": "of the post phase, which takes the outputs",
    "run": "from being placed on a node to the end",
    "stage": "of the run that is none of the three phases: what is lost between them",
}
_HOW: Final = {"sum": "Total", "min": "Minimum", "max": "Maximum", "avg": "Average"}


def _count(name: str, title: str, about: str, group: str) -> Column:
    return Column(f"{name}_count", title, about, "count", group, "sum")


def _times(kind: str) -> tuple[Column, ...]:
    return tuple(
        Column(
            name=f"{kind}_time_{how}",
            title=f"{kind.capitalize()} Time ({word})",
            description=f"{word} time {_ABOUT_TIMES[kind]}.",
            units="seconds",
            group=f"{kind}_time",
            aggregate=how,
        )
        for how, word in _HOW.items()
    )


_JOB_TYPES: Final = Metric(
    name="job-types",
    title="Job Types",
    description="Executions that ended, by job type and day.",
    filters={"name": "string", "version": "string", "title": "string", "category": "string"},
    groups=(
        _OVERVIEW,
        Group("errors", "Errors", "How many executions failed, by whose fault it was."),
        *(
            Group(f"{kind}_time", f"{kind.capitalize()} Time", f"Time {about}.")
            for kind, about in _ABOUT_TIMES.items()
        ),
    ),
    columns=(
        _count("completed", "Completed Count", "Executions that completed.", "overview"),
        _count("failed", "Failed Count", "Executions that failed.", "overview"),
        _count("canceled", "Canceled Count", "Executions that were canceled.", "overview"),
        _count("total", "Total Count", "Executions that ended.", "overview"),
        _count("error_system", "System Error Count", "Failures of the system.", "errors"),
        _count("error_data", "Data Error Count", "Failures by bad data.", "errors"),
        _count("error_algorithm", "Algorithm Error Count", "Failures of the job itself.", "errors"),
        *(column for kind in TIMES for column in _times(kind)),
    ),
    days=DailyJobType,
    choices=JobType,
    choice="job_type_id",
)
_ERRORS: Final = Metric(
    name="errors",
    title="Errors",
    description="Executions that failed, by error and day.",
    filters={"name": "string", "title": "string", "category": "string"},
    groups=(_OVERVIEW,),
    columns=(_count("total", "Total Count", "Executions that failed by it.", "overview"),),
    days=DailyError,
    choices=Error,
    choice="error_id",
)
#: Every kind of metric, by its name.
METRICS: Final[Mapping[str, Metric]] = {each.name: each for each in (_JOB_TYPES, _ERRORS)}
