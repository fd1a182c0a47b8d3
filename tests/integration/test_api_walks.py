"""Walks through lists by cursors, and items of which only some fields are wanted."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from list_world import NOON, Make, get, ids_of
from rest_framework.test import APIClient

from scale.api import outlines
from scale.core.lifecycle import State
from scale.job.models import JobExecution


def walk(api: APIClient, address: str, **parameters: Any) -> list[int]:
    answer = get(api, address, cursor="", **parameters)
    found = ids_of(answer)
    while answer["next"]:
        assert "cursor=" in answer["next"]
        assert answer["previous"] is None
        answer = api.get(answer["next"]).json()
        found += ids_of(answer)
    return found


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("/job-executions/", "last_modified"),
        ("/jobs/", "last_modified"),
        ("/jobs/updates/", "last_status_change"),
        ("/jobs/executions/", "last_modified"),
        ("/nodes/", "last_modified"),
        ("/errors/", "last_modified"),
        ("/job-types/", "name"),
    ],
)
def test_a_walk_meets_each_row_once_in_order(
    address: str, own: str, make_world: Make, api: APIClient
) -> None:
    make_world()
    orders: list[Any] = [(), "id", "-id"]
    orders += [["name", "version"], ["-name", "-version"]] if own == "name" else [own, f"-{own}"]
    for order in orders:
        wanted = ids_of(get(api, address, order=order))
        for size in (1, 3, len(wanted), 1000):
            assert walk(api, address, order=order, page_size=size) == wanted, (order, size)


def test_a_walk_tells_rows_apart_that_show_the_same_time(
    make_execution: Make, api: APIClient
) -> None:
    made = [make_execution(State.QUEUED, at=NOON + timedelta(microseconds=n)) for n in range(6)]
    shown = {each["last_modified"] for each in get(api, "/job-executions/")["results"]}
    assert shown == {"2026-01-01T12:00:00.000Z"}
    wanted = [row.pk for row in made]
    for size in (1, 2, 4):
        assert walk(api, "/job-executions/", page_size=size) == wanted
        backwards = walk(api, "/job-executions/", page_size=size, order="-last_modified")
        assert backwards == wanted[::-1]


def test_a_walk_keeps_filters_and_fields(make_world: Make, api: APIClient) -> None:
    make_world()
    chosen = {"status": "FAILED", "fields": ["id", "status"]}
    wanted = ids_of(get(api, "/job-executions/", status="FAILED"))
    assert walk(api, "/job-executions/", page_size=1, **chosen) == wanted
    first = get(api, "/job-executions/", cursor="", page_size=1, **chosen)
    assert first["count"] == len(wanted)
    assert set(api.get(first["next"]).json()["results"][0]) == {"id", "status"}


def test_histories_attempts_and_revisions_are_walked(make_world: Make, api: APIClient) -> None:
    made = make_world()[3]
    for address in (
        f"/jobs/{made.job_id}/history/",
        f"/job-executions/{made.pk}/history/",
        f"/jobs/{made.job_id}/executions/",
        f"/job-types/{made.job_type_id}/revisions/",
    ):
        wanted = ids_of(get(api, address))
        assert wanted
        assert walk(api, address, page_size=1) == wanted
        assert set(get(api, address, fields="id")["results"][0]) == {"id"}


def test_files_and_bulk_actions_are_walked_and_trimmed(make_world: Make, api: APIClient) -> None:
    make_world()
    for name in "abc":
        upload = {"file": SimpleUploadedFile(name, b"text")}
        assert api.post("/files/", upload, format="multipart").status_code == 201
        asked = api.post("/jobs/requeue/", {"job_ids": [1]}, format="json")
        assert asked.status_code == 202
    for address, kept in (("/files/", "url"), ("/bulk-actions/", "requested_by")):
        whole = get(api, address)["results"]
        assert len(whole) == 3
        assert walk(api, address, page_size=1) == [each["id"] for each in whole]
        trimmed = get(api, address, fields=f"id,{kept}")["results"]
        assert trimmed == [{"id": each["id"], kept: each[kept]} for each in whole]


def test_rows_that_change_while_somebody_walks_are_no_error(
    make_world: Make, make_execution: Make, api: APIClient
) -> None:
    make_world()
    wanted = ids_of(get(api, "/job-executions/"))
    answer = get(api, "/job-executions/", cursor="", page_size=3)
    # The row that the cursor stands on moves to the end, and new ones come.
    later = NOON + timedelta(days=1)
    JobExecution.objects.filter(pk=wanted[2]).update(last_modified=later)
    new = make_execution(State.QUEUED, at=later)
    found = []
    while answer["next"]:
        answer = api.get(answer["next"]).json()
        found += ids_of(answer)
    assert found == [*wanted[3:], wanted[2], new.pk]
    assert answer["count"] == len(wanted) + 1


def cursor_of(api: APIClient, address: str, **parameters: Any) -> str:
    following = get(api, address, cursor="", page_size=1, **parameters)["next"]
    return str(following.rpartition("cursor=")[2])


def test_a_cursor_that_is_not_of_this_list_and_order_is_refused(
    make_world: Make, api: APIClient
) -> None:
    make_world()
    good = cursor_of(api, "/job-executions/")
    assert get(api, "/job-executions/", cursor=good)["results"]
    assert get(api, "/v3/job-executions/", cursor=good)["results"]
    others = [
        cursor_of(api, "/jobs/"),
        cursor_of(api, "/job-executions/", order="-last_modified"),
        cursor_of(api, "/job-executions/", order="id"),
    ]
    texts = [
        *others,
        good[:-4],
        good[4:],
        good + "A" * 4,
        "x",
        "é",
        "%00",
        "=",
        "W10",
        "bnVsbA",
        "A" * 999,
    ]
    for text in texts:
        answer = api.get("/job-executions/", {"cursor": text})
        assert answer.status_code == 400, text
        assert (answer.json()["field"], answer.json()["code"]) == ("cursor", "invalid"), text


def test_a_forged_cursor_with_what_is_no_text_is_refused(
    make_job_type: Make, api: APIClient
) -> None:
    make_job_type()
    make_job_type()
    good = cursor_of(api, "/job-types/")
    parts = json.loads(urlsafe_b64decode(good + "=="))
    text = next(at for at, part in enumerate(parts) if at > 1 and isinstance(part, str))
    for value in ("\ud800", "a\0b", "x" * 10 + "\udfff"):
        forged = json.dumps([*parts[:text], value, *parts[text + 1 :]])
        answer = api.get("/job-types/", {"cursor": urlsafe_b64encode(forged.encode()).decode()})
        assert (answer.status_code, answer.json()["field"]) == (400, "cursor")


@pytest.mark.parametrize(
    "parameters",
    [
        {"cursor": "", "page": 1},
        {"cursor": "", "order": "status"},
        {"cursor": "", "order": ["last_modified", "-id"]},
        {"cursor": ["", ""]},
    ],
)
def test_a_cursor_goes_with_no_page_and_no_other_order(
    parameters: dict[str, Any], api: APIClient, db: None
) -> None:
    answer = api.get(f"/job-executions/?{urlencode(parameters, doseq=True)}")
    assert (answer.status_code, answer.json()["field"]) == (400, "cursor")


FIELDS = {
    "/job-executions/": outlines.EXECUTION,
    "/jobs/": outlines.JOB,
    "/jobs/updates/": outlines.JOB_UPDATE,
    "/jobs/executions/": outlines.JOB_WITH_EXECUTION,
    "/job-types/": outlines.JOB_TYPE,
    "/errors/": outlines.ERROR,
    "/nodes/": None,
}


@pytest.mark.parametrize("address", FIELDS)
def test_every_field_can_be_had_alone_and_is_the_same(
    address: str, make_world: Make, api: APIClient
) -> None:
    make_world()
    whole = get(api, address)["results"]
    item = FIELDS[address]
    names = set(whole[0])
    assert item is None or names == set(item.names)
    for name in names:
        alone = get(api, address, fields=name)["results"]
        assert alone == [{name: each[name]} for each in whole], name
    together = sorted(names)
    assert get(api, address, fields=",".join(together))["results"] == whole
    assert get(api, address, fields=together)["results"] == whole


@pytest.mark.parametrize("text", ["foo", "id,foo", "", "id,", "job.id", "ID"])
def test_a_field_that_is_not_there_is_refused(text: str, api: APIClient, db: None) -> None:
    answer = api.get("/job-executions/", {"fields": text})
    assert (answer.status_code, answer.json()["field"]) == (400, "fields")
