"""Every list: its queries, filters, orders and pages; tables of the code itself.

What a list should answer is worked out here from all rows, in Python.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.db.models import Q
from django.test.utils import CaptureQueriesContext
from list_world import NOON, Make, get, ids_of
from rest_framework.test import APIClient

from scale.core.lifecycle import JobStatus, Status
from scale.error.models import Error
from scale.error.selectors import ERROR_ORDER
from scale.job import lists
from scale.job.lists import Position, execution_rows, job_rows
from scale.job.models import Job, JobExecution, JobType
from scale.job.selectors import EXECUTION_ORDER, JOB_ORDER, JOB_TYPE_ORDER, Wanted, within
from scale.node.models import Node
from scale.node.selectors import NODE_ORDER

#: address -> its queries: the look-up of what the path names, the count, the page, and more.
QUERIES = {
    "/job-executions/": 2,
    "/jobs/": 2,
    "/jobs/updates/": 2,
    "/jobs/executions/": 3,
    "/jobs/{job}/executions/": 3,
    "/jobs/{job}/history/": 3,
    "/job-executions/{execution}/history/": 3,
    "/job-types/": 2,
    "/job-types/{job_type}/revisions/": 3,
    "/job-types/running/": 2,
    "/job-types/system-failures/": 3,
    "/job-types/status/": 4,
    "/nodes/": 2,
    "/nodes/status/": 4,
    "/errors/": 2,
    "/files/": 2,
    "/bulk-actions/": 2,
    "/load/": None,
    "/queue/status/": None,
}


def queries_of(api: APIClient, address: str) -> int:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert api.get(address).status_code == 200, address
    return len(queries)


def test_the_queries_of_a_list_do_not_grow_with_its_rows(make_world: Make, api: APIClient) -> None:
    def fill() -> JobExecution:
        made = make_world()
        api.post("/files/", {"file": SimpleUploadedFile("a.txt", b"text")}, format="multipart")
        api.post("/jobs/requeue/", {"job_ids": [1]}, format="json")
        found: JobExecution = made[5]
        return found

    first = fill()
    names = {"job": first.job_id, "execution": first.pk, "job_type": first.job_type_id}
    addresses = {address: address.format(**names) for address in QUERIES}
    before = {address: queries_of(api, path) for address, path in addresses.items()}
    fill()
    after = {address: queries_of(api, path) for address, path in addresses.items()}
    assert after == before
    fixed = {address: number for address, number in QUERIES.items() if number is not None}
    assert {address: after[address] for address in fixed} == fixed


def test_names_and_categories_cost_one_query_more(
    make_world: Make, api: APIClient, django_assert_num_queries: Callable[..., Any]
) -> None:
    make_world()
    for address in ("/job-executions/", "/jobs/"):
        with django_assert_num_queries(3):
            assert get(api, address, job_type_category=["images", "texts"])["count"] == 5
        with django_assert_num_queries(1):
            assert get(api, address, job_type_name="no such name")["count"] == 0
    with django_assert_num_queries(3):
        assert get(api, "/jobs/", error_category=["ALGORITHM", "DATA"])["count"] == 2


def test_a_walk_and_trimmed_items_cost_no_query_more(
    make_world: Make, api: APIClient, django_assert_num_queries: Callable[..., Any]
) -> None:
    make_world()
    with django_assert_num_queries(2):
        get(api, "/job-executions/", cursor="")
    for address, extra in (
        ("/jobs/updates/", "input_files"),
        ("/jobs/executions/", "latest_job_exe"),
    ):
        with django_assert_num_queries(2):
            assert extra not in get(api, address, fields="id")["results"][0]
    with django_assert_num_queries(2) as queries:
        assert set(get(api, "/job-executions/", fields="id,status")["results"][0]) == {
            "id",
            "status",
        }
    assert "JOIN" not in queries[1]["sql"]
    assert "command_arguments" not in queries[1]["sql"]


def fits_execution(row: JobExecution, name: str, value: Any) -> Any:
    match name:
        case "status":
            return row.status == value
        case "job_type_id":
            return row.job_type_id == value
        case "job_type_name":
            return row.job_type.name == value
        case "job_type_category":
            return row.job_type.category == value
        case "node_id":
            return row.node_id == value
        case "error_id":
            return row.error_id == value
        case "error_category":
            return row.error is not None and row.error.category == value
    raise AssertionError(name)


def fits_job(row: Job, name: str, value: Any) -> Any:
    if name == "job_id":
        return row.pk == value
    last = row.executions.order_by("exe_num").last()
    assert last is not None
    if name == "status":
        return row.status == value
    return fits_execution(last, name, value) and (name[:5] != "error" or row.error_id is not None)


def in_time(rows: Sequence[Any]) -> list[int]:
    return [row.pk for row in sorted(rows, key=lambda row: (row.last_modified, row.pk))]


def filters_of(executions: Sequence[JobExecution]) -> dict[str, list[Any]]:
    return {
        "status": [status.value for status in Status],
        "job_type_id": [row.job_type_id for row in executions] + [999_999],
        "job_type_name": [row.job_type.name for row in executions] + ["none"],
        "job_type_category": ["images", "texts", "none"],
        "node_id": [row.node_id for row in executions if row.node_id] + [999_999],
    }


def test_every_filter_of_executions_gives_what_fits_in_the_order_of_time(
    make_world: Make, api: APIClient
) -> None:
    make_world()
    rows = list(JobExecution.objects.select_related("job_type", "error", "node"))
    for name, values in filters_of(rows).items():
        for value in dict.fromkeys(values):
            wanted = in_time([row for row in rows if fits_execution(row, name, value)])
            found = get(api, "/job-executions/", **{name: value})
            assert (found["count"], ids_of(found)) == (len(wanted), wanted), (name, value)
        if name != "status":
            several = list(dict.fromkeys(values))[:2]
            some = [
                row for row in rows if any(fits_execution(row, name, value) for value in several)
            ]
            found = get(api, "/job-executions/", **{name: [*several, several[0]]})
            assert (found["count"], ids_of(found)) == (len(some), in_time(some)), name


@pytest.mark.parametrize("address", ["/jobs/", "/jobs/updates/", "/jobs/executions/"])
def test_every_filter_of_jobs_gives_what_fits_in_the_order_of_time(
    address: str, make_world: Make, api: APIClient
) -> None:
    executions = make_world()
    rows = list(Job.objects.all())
    filters = filters_of(executions)
    del filters["node_id"]
    filters |= {
        "status": [status.value for status in JobStatus],
        "job_id": [row.pk for row in rows] + [999_999],
        "error_id": [row.error_id for row in rows if row.error_id] + [999_999],
        "error_category": [category.value for category in Error.Category],
    }
    for name, values in filters.items():
        chosen = list(dict.fromkeys(values))
        for some in [*([value] for value in chosen), chosen[:2]]:
            fitting = [row for row in rows if any(fits_job(row, name, value) for value in some)]
            found = get(api, address, **{name: some})
            assert (found["count"], ids_of(found)) == (len(fitting), in_time(fitting)), (name, some)


#: address -> what is listed, and the time that a period bounds.
PERIODS: dict[str, tuple[type[Any], str]] = {
    "/job-executions/": (JobExecution, "last_modified"),
    "/jobs/": (Job, "last_modified"),
    "/jobs/updates/": (Job, "last_status_change"),
    "/jobs/executions/": (Job, "last_modified"),
    "/job-types/": (JobType, "last_modified"),
    "/nodes/": (Node, "last_modified"),
    "/errors/": (Error, "last_modified"),
}


@pytest.mark.parametrize("address", PERIODS)
def test_a_period_has_what_changed_in_it_both_ends_included(
    address: str, make_world: Make, make_node: Make, api: APIClient
) -> None:
    make_world()
    make_node()
    model, field = PERIODS[address]
    keys = list(model.objects.order_by("id").values_list("id", flat=True))
    times = [(NOON + timedelta(minutes=number)).isoformat() for number in range(len(keys))]
    for key, at in zip(keys, times, strict=True):
        model.objects.filter(pk=key).update(**{field: at})

    def found(**period: str) -> list[int]:
        return sorted(ids_of(get(api, address, **period)))

    assert len(keys) > 2
    assert found(started=times[1]) == keys[1:]
    assert found(ended=times[-2]) == keys[:-1]
    assert found(started=times[0], ended=times[1]) == keys[:2]


def test_filters_together_give_what_fits_all(make_world: Make) -> None:
    made = make_world()
    rows = list(JobExecution.objects.select_related("job_type", "error", "node"))
    types, nodes = [made[1].job_type_id, made[2].job_type_id], [made[1].node_id]
    periods: list[tuple[Any, Any]] = [
        (None, None),
        (NOON + timedelta(minutes=50), NOON + timedelta(minutes=160)),
    ]
    choices: list[dict[str, Any]] = [
        {name: value for name, value in chosen.items() if value}
        for chosen in (
            {"statuses": s, "job_type_ids": t, "node_ids": n, "error_categories": e}
            for s in ((), ["COMPLETED"], ["FAILED", "COMPLETED"])
            for t in ((), types)
            for n in ((), nodes)
            for e in ((), ["ALGORITHM"])
        )
    ]
    for started, ended in periods:
        for chosen in choices:
            fitting = [
                row
                for row in rows
                if (started is None or started <= row.last_modified <= ended)
                and row.status in chosen.get("statuses", [row.status])
                and row.job_type_id in chosen.get("job_type_ids", [row.job_type_id])
                and row.node_id in chosen.get("node_ids", [row.node_id])
                and (
                    not chosen.get("error_categories")
                    or (row.error and row.error.category == "ALGORITHM")
                )
            ]
            found = execution_rows(Wanted(started=started, ended=ended, **chosen))
            assert found.count() == len(fitting), (started, chosen)
            read = found.page(["id"], ["last_modified", "id"], first=0, size=50, count=50)
            assert [key for (key,) in read] == in_time(fitting), (started, chosen)
            also = Q(exe_num=1) & ~Q(state="failed")
            left = execution_rows(Wanted(started=started, ended=ended, also=also, **chosen))
            assert left.count() == sum(row.status != "FAILED" for row in fitting)


def test_periods_count_the_same_by_hours_as_by_rows(make_world: Make) -> None:
    make_world()
    periods = [(0, 400), (1, 3), (0, 60), (30, 150), (50, 100), (61, 119), (-300, 60), (100, 900)]
    for statuses in ((), ("FAILED",), ("FAILED", "COMPLETED")):
        chosen = Q(status__in=statuses) if statuses else Q()
        for minutes in periods:
            first, last = (NOON + timedelta(minutes=number) for number in minutes)
            for started, ended in ((first, last), (first, None), (None, last)):
                wanted = Wanted(started=started, ended=ended, statuses=statuses)
                rows = JobExecution.objects.filter(within(started, ended), chosen)
                assert execution_rows(wanted).count() == rows.count(), (minutes, statuses)


ORDERS: dict[str, tuple[Mapping[str, str], type[Any]]] = {
    "/job-executions/": (EXECUTION_ORDER, JobExecution),
    "/jobs/": (JOB_ORDER, Job),
    "/jobs/updates/": (JOB_ORDER, Job),
    "/jobs/executions/": (JOB_ORDER, Job),
    "/job-types/": (JOB_TYPE_ORDER, JobType),
    "/nodes/": (NODE_ORDER, Node),
    "/errors/": (ERROR_ORDER, Error),
}


@pytest.mark.parametrize("address", ORDERS)
def test_every_field_orders_both_ways_and_ties_go_by_id(
    address: str, make_world: Make, api: APIClient
) -> None:
    make_world()
    fields, model = ORDERS[address]
    for name, column in fields.items():
        # PostgreSQL compares; what it should compare is written out here, and nulls are last.
        wanted = list(model.objects.order_by(column, "id").values_list("id", flat=True))
        assert ids_of(get(api, address, order=name)) == wanted, name
        assert ids_of(get(api, address, order=f"-{name}")) == wanted[::-1], f"-{name}"


def test_several_fields_order_one_after_the_other(make_world: Make, api: APIClient) -> None:
    make_world()
    found = get(api, "/job-executions/", order=["-status", "last_modified"])["results"]
    keys = [(each["status"], each["last_modified"], each["id"]) for each in found]
    by_time = sorted(keys, key=lambda key: key[1:])
    assert keys == sorted(by_time, key=lambda key: key[0], reverse=True)


@pytest.mark.parametrize(
    "chosen", [{}, {"status": "FAILED"}, {"job_type_category": ["images", "texts"]}]
)
def test_pages_have_each_row_once_whichever_end_is_nearer(
    chosen: dict[str, Any], make_world: Make, api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_world()
    for far in (1000, 0):
        monkeypatch.setattr(lists, "_FAR", far)  # each page may be far from both ends
        for order in ("last_modified", "-last_modified", "id", "-ended", "status"):
            wanted = ids_of(get(api, "/job-executions/", order=order, **chosen))
            for size in (1, 2, 4, len(wanted), 1000):
                pages = paged(api, order=order, page_size=size, **chosen)
                assert [key for page in pages for key in page] == wanted


def paged(api: APIClient, **parameters: Any) -> list[list[int]]:
    """Read page by page; the one after the last is empty, and has the count all the same."""
    found: list[list[int]] = []
    answer: dict[str, Any] = {"next": True}
    while answer["next"]:
        answer = get(api, "/job-executions/", page=len(found) + 1, **parameters)
        assert (answer["previous"] is None) == (not found)
        found.append(ids_of(answer))
    beyond = get(api, "/job-executions/", page=len(found) + 1, **parameters)
    assert (beyond["results"], beyond["count"]) == ([], sum(map(len, found)))
    return found


@pytest.mark.parametrize("order", [["last_modified", "id"], ["-last_modified", "-id"]])
@pytest.mark.parametrize(
    ("rows", "chosen", "index"),
    [
        (execution_rows, {}, "execution_by_last_modified"),
        (execution_rows, {"started": NOON}, "execution_by_last_modified"),
        (execution_rows, {"statuses": ["FAILED", "QUEUED"]}, "execution_by_status"),
        (execution_rows, {"job_type_ids": [1, 2]}, "execution_by_type"),
        (execution_rows, {"node_ids": [1]}, "execution_on_node"),
        (execution_rows, {"error_ids": [1]}, "execution_by_error"),
        (job_rows, {}, "job_by_last_modified"),
        (job_rows, {"statuses": ["FAILED"]}, "job_by_status"),
        (job_rows, {"job_type_ids": [1]}, "job_by_type"),
        (job_rows, {"error_ids": [1], "ended": NOON}, "job_by_error"),
    ],
)
def test_the_ids_of_a_page_come_from_one_index_in_its_order(
    rows: Callable[[Wanted], Any],
    chosen: dict[str, Any],
    index: str,
    order: list[str],
    make_job: Make,
) -> None:
    make_job()  # planned as for a table of any size: by what would be read in order
    for condition in (Q(), lists._beyond(order, Position((NOON, 7)))):
        statement, parameters = rows(Wanted(**chosen))._ids(condition, order, 50, 100)
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
            cursor.execute("SET LOCAL enable_sort = off; SET LOCAL enable_incremental_sort = off")
            cursor.execute(f"EXPLAIN {statement}", parameters)
            plan = "\n".join(line for (line,) in cursor.fetchall())
        way = "Backward " if order[0].startswith("-") else ""
        assert f"Index Only Scan {way}using {index}" in plan, plan
