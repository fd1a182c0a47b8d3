"""How jobs are stored: one statement, whatever else goes on at the time."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import RFC_4122, UUID

import pytest
from django.contrib.auth.models import Group, Permission
from django.db import DataError, IntegrityError, connection
from knox.models import AuthToken
from rest_framework.test import APIClient
from scheduled import NOON, make_type, statements

from scale.core.errors import InvalidInput
from scale.job.models import ExecutionEvent, Job, JobExecution, JobType, TriggerEvent
from scale.job.new_jobs import Draft, store_jobs
from scale.job.submission import JobRequest, submit_job, submit_jobs
from scale.wake import WORK_CHANNEL

pytestmark = pytest.mark.django_db
NUMBER = {"command": "a", "input_data": [{"name": "x", "type": "property", "value_type": "number"}]}
TEXT = {"command": "a", "input_data": [{"name": "y", "type": "property"}]}


def nothing_is_stored() -> bool:
    return not any(
        model.objects.exists() for model in (Job, JobExecution, TriggerEvent, ExecutionEvent)
    )


def test_ids_rise_in_the_order_of_the_requests_however_many_types() -> None:
    types = [make_type() for _ in range(5)]
    wanted = [JobRequest(types[n * 7 % 5], name=f"n{n}") for n in range(1000)]
    ids = submit_jobs(wanted, user="ada", at=NOON)
    assert ids == sorted(ids)
    rows = list(Job.objects.order_by("id").values_list("id", "name", "job_type_id"))
    assert rows == [
        (key, each.name, each.job_type.pk) for key, each in zip(ids, wanted, strict=True)
    ]
    executions = JobExecution.objects.order_by("id").values_list("job_id", flat=True)
    assert list(executions) == ids
    assert len(set(JobExecution.objects.values_list("uuid", flat=True))) == 1000


def test_uuids_rise_with_time_and_differ_within_a_moment() -> None:
    job_type = make_type()
    found: list[UUID] = []
    for at in (NOON, NOON + timedelta(milliseconds=1), NOON + timedelta(days=1000)):
        submit_jobs([JobRequest(job_type)] * 100, user="ada", at=at)
        new = JobExecution.objects.filter(created=at).values_list("uuid", flat=True)
        assert {each.int >> 80 for each in new} == {round(at.timestamp() * 1000)}
        assert {(each.version, each.variant) for each in new} == {(7, RFC_4122)}
        assert len({each.int & 0xFFF << 64 for each in new}) > 90
        found += sorted(new)
    assert len(set(found)) == 300
    assert found == sorted(found)


def test_what_is_returned_is_what_is_stored() -> None:
    job, execution = submit_job(JobRequest(make_type(NUMBER), {"x": 0.1}), user="ada", at=NOON)
    assert [vars_of(job), vars_of(execution)] == [
        vars_of(Job.objects.get()),
        vars_of(JobExecution.objects.get()),
    ]
    revision, event = job.job_type_rev, job.event
    assert vars_of(revision) == vars_of(type(revision).objects.get(pk=revision.pk))
    assert vars_of(event) == vars_of(TriggerEvent.objects.get())


def vars_of(row: Any) -> dict[str, Any]:
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


def test_a_type_that_is_edited_meanwhile_gives_the_terms_that_were_read() -> None:
    job_type = make_type(NUMBER, timeout=11)
    read_before = JobType.objects.get()
    job_type.revisions.create(revision_num=2, interface=TEXT)
    JobType.objects.update(interface=TEXT, revision_num=2, timeout=22)
    job, _ = submit_job(JobRequest(read_before, {"x": 1}), user="ada", at=NOON)
    assert (job.job_type_rev.revision_num, job.timeout) == (1, 11)
    assert Job.objects.get().job_type_rev.interface == NUMBER
    with pytest.raises(InvalidInput):
        submit_job(JobRequest(JobType.objects.get(), {"x": 1}), user="ada", at=NOON)


def draft_of(job_type: JobType, **fields: Any) -> Draft:
    terms = {
        "job_type_id": job_type.pk,
        "revision_num": 1,
        "name": "",
        "priority": 1,
        "timeout": 1,
        "max_tries": 1,
        "cpus_required": 1.0,
        "mem_required": 1.0,
        "disk_in_required": 0.0,
        "disk_out_required": 0.0,
        "data": {},
        "phase": "job",
        "has_steps": False,
        "needs_millicpus": 1,
        "needs_mem_mib": 1,
        "needs_disk_mib": 1,
    }
    return Draft(**{**terms, **fields})


@pytest.mark.parametrize(
    ("bad", "refused"),
    [
        ({"revision_num": 2}, IntegrityError),  # there is none: the job must not get lost
        ({"phase": "none"}, IntegrityError),
        ({"name": "x" * 251}, DataError),
        ({"needs_millicpus": 2**31}, DataError),
    ],
)
@pytest.mark.django_db(transaction=True)
def test_what_the_database_refuses_stores_nothing(
    bad: dict[str, Any], refused: type[Exception]
) -> None:
    job_type = make_type()
    drafts = [draft_of(job_type, **(bad if n == 500 else {})) for n in range(1000)]
    with pytest.raises(refused):
        store_jobs(drafts, user="ada", at=NOON)
    assert nothing_is_stored()


@pytest.mark.django_db(transaction=True)
def test_a_job_type_that_vanishes_meanwhile_takes_its_jobs_with_it() -> None:
    job_type = make_type()
    job_type.revisions.all().delete()
    JobType.objects.all().delete()
    with pytest.raises(IntegrityError):
        submit_jobs([JobRequest(job_type)], user="ada", at=NOON)
    assert nothing_is_stored()


@pytest.mark.django_db(transaction=True)
def test_a_new_connection_stores_jobs_as_well_as_the_old() -> None:
    job_type = make_type()
    for _ in range(2):
        submit_jobs([JobRequest(job_type)], user="ada", at=NOON)
        submit_job(JobRequest(job_type), user="ada", at=NOON)
        connection.close()
    assert Job.objects.count() == 4


@pytest.mark.django_db(transaction=True)
def test_the_scheduler_hears_of_new_jobs_once_they_are_stored() -> None:
    job_type = make_type()
    with connection.cursor() as cursor:
        cursor.execute(f"LISTEN {WORK_CHANNEL}")
        submit_jobs([JobRequest(job_type)] * 3, user="ada", at=NOON)
        heard = cursor.connection
        heard.poll()
        assert [each.channel for each in heard.notifies] == [WORK_CHANNEL]
        heard.notifies.clear()
        cursor.execute("UNLISTEN *")


def test_a_submission_is_three_statements(make_user: Callable[..., Any]) -> None:
    job_type = make_type(NUMBER)
    _, token = AuthToken.objects.create(make_user(is_superuser=True))
    client = APIClient(headers={"Authorization": f"Token {token}"})
    body = {"job_type_id": job_type.pk, "inputs": {"x": 1}}
    bulk = {"jobs": [body] * 100}
    for path, sent in (("/jobs/", body), ("/jobs/bulk/", bulk)):
        with statements() as counted:
            assert client.post(path, sent, format="json").status_code == 201
        assert counted.count == 3  # the token, the type, the jobs


def test_one_bad_job_in_the_middle_of_a_thousand_refuses_all(api: APIClient) -> None:
    good = {"job_type_id": make_type(NUMBER).pk, "inputs": {"x": 1}}
    for bad, field in (
        ({**good, "inputs": {"x": "1"}}, "jobs[500].inputs.x"),
        ({**good, "priority": 2**31}, "jobs[500].priority"),
        ({**good, "job_type_id": 999_999}, "jobs[500].job_type_id"),
    ):
        answer = api.post(
            "/jobs/bulk/", {"jobs": [good] * 500 + [bad] + [good] * 499}, format="json"
        )
        assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert nothing_is_stored()


def test_a_token_is_asked_for_each_time(make_user: Callable[..., Any]) -> None:
    row, token = AuthToken.objects.create(make_user(is_superuser=True))
    client = APIClient(headers={"Authorization": f"Token {token}"})
    assert client.get("/version/").status_code == 200
    AuthToken.objects.update(expiry=NOON)
    assert client.get("/version/").status_code == 401
    assert not AuthToken.objects.exists()
    row.save(force_insert=True)
    assert client.get("/version/").status_code == 200
    row.delete()
    assert client.get("/version/").status_code == 401


def test_permissions_come_from_the_user_and_from_groups_in_one_query(
    make_user: Callable[..., Any], django_assert_num_queries: Callable[..., Any]
) -> None:
    user = make_user("job.add_job", "job.view_job")
    group = Group.objects.create(name="those who retire nodes")
    group.permissions.add(Permission.objects.get(codename="delete_node"))
    group.permissions.add(Permission.objects.get(codename="view_job"))
    user.groups.add(group)
    with django_assert_num_queries(1):
        assert user.get_all_permissions() == {"job.add_job", "job.view_job", "node.delete_node"}
        assert user.has_perm("node.delete_node")
        assert not user.has_perm("node.change_node")
        assert user.has_module_perms("node")
    again = type(user).objects.get(pk=user.pk)
    again.groups.clear()
    assert again.get_all_permissions() == {"job.add_job", "job.view_job"}
    again.is_active = False
    assert not again.has_perm("job.add_job")


def test_a_superuser_may_everything(make_user: Callable[..., Any]) -> None:
    user = make_user(is_superuser=True)
    assert user.get_all_permissions() >= {"job.add_job", "node.delete_node"}
