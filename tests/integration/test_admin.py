"""The admin shows every model, changes none itself, and its buttons call the services."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

import scale.admin
from scale.admin import FirstRows
from scale.core.lifecycle import State
from scale.job.asked import BulkAction, IdempotencyKey
from scale.job.models import ArchivedLog, File, Job, JobExecution, JobType, TriggerEvent
from scale.node.models import Node
from scale.scheduler.models import SchedulerState

pytestmark = pytest.mark.django_db
OURS = [model for model in admin.site._registry if model.__module__.startswith("scale.")]
NAMES = [model._meta.label_lower for model in OURS]


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("boss"))
    return client


@pytest.fixture
def full_house(make_execution: Callable[..., JobExecution], make_node: Callable[..., Node]) -> None:
    """At least one row of each model."""
    node = make_node()
    make_execution(State.QUEUED)
    done = make_execution(State.COMPLETED, node=node)
    File.objects.create(
        name="a",
        size=1,
        media_type="text/plain",
        sha256="0" * 64,
        storage_name="a",
        created=done.created,
    )
    ArchivedLog.objects.create(
        execution=done, phase="job", stream="stdout", size=0, archived=done.created
    )
    BulkAction.objects.create(kind="cancel", filters={}, created=done.created, last_id=done.job_id)
    IdempotencyKey.objects.create(
        user=User.objects.create_user("somebody"), key="k", request_hash="", created=done.created
    )


def address(model: type, page: str, *arguments: object) -> str:
    meta = model._meta  # type: ignore[attr-defined]
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_{page}", args=arguments)


def press(client: Client, model: type, action: str, *rows: Any) -> str:
    chosen = {"action": action, "_selected_action": [row.pk for row in rows]}
    return client.post(address(model, "changelist"), chosen, follow=True).content.decode()


@pytest.mark.parametrize("model", OURS, ids=NAMES)
def test_every_model_has_a_list_and_a_page_that_cannot_be_edited(
    model: type, boss: Client, full_house: None
) -> None:
    row = admin.site._registry[model].get_queryset(None).first()  # type: ignore[arg-type, index]
    assert row is not None
    assert boss.get(address(model, "changelist")).status_code == 200
    page = boss.get(address(model, "change", row.pk))
    assert page.status_code == 200
    assert 'name="_save"' not in page.content.decode()
    assert boss.post(address(model, "change", row.pk), {}).status_code == 403
    assert boss.get(address(model, "add")).status_code == 403
    assert boss.post(address(model, "delete", row.pk), {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("model", [Job, JobExecution], ids=["job", "execution"])
def test_a_list_takes_as_many_queries_for_many_rows_as_for_one(
    model: type,
    boss: Client,
    make_execution: Callable[..., JobExecution],
    make_node: Callable[..., Node],
) -> None:
    node = make_node()

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as seen:
            assert boss.get(address(model, "changelist")).status_code == 200
        return len(seen)

    make_execution(State.FAILED, node=node)
    boss.get(address(model, "changelist"))
    few = queries()
    for _ in range(20):
        make_execution(State.FAILED, node=node)
    assert queries() == few


@pytest.mark.parametrize("model", OURS, ids=NAMES)
def test_no_list_counts_a_whole_table(model: type, boss: Client, full_house: None) -> None:
    with CaptureQueriesContext(connection) as seen:
        boss.get(address(model, "changelist"))
    counts = [query["sql"] for query in seen if "COUNT(" in query["sql"]]
    assert counts
    assert all("LIMIT" in sql for sql in counts)


def test_a_list_ends_where_it_is_no_longer_counted(
    boss: Client, make_execution: Callable[..., JobExecution], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FirstRows, "MOST", 60)
    make_execution(State.QUEUED)
    TriggerEvent.objects.bulk_create(
        TriggerEvent(type="USER", occurred=timezone.now()) for _ in range(200)
    )
    last = boss.get(address(TriggerEvent, "changelist"), {"p": 2})
    assert len(last.context["cl"].result_list) == 10
    assert "p=3" not in last.content.decode()


def test_more_than_a_request_can_change_are_left_alone(
    boss: Client, make_execution: Callable[..., JobExecution], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale.admin, "MOST_AT_ONCE", 2)
    jobs = [make_execution(State.QUEUED).job for _ in range(3)]
    chosen = {"action": "cancel", "_selected_action": [jobs[0].pk], "select_across": "1"}
    page = boss.post(address(Job, "changelist"), chosen, follow=True).content.decode()
    assert "More than 2 are chosen" in page
    assert {job.status for job in Job.objects.all()} == {"QUEUED"}
    assert "2 canceled" in press(boss, Job, "cancel", *jobs[:2])


def test_cancel_and_requeue_go_through_the_services(
    boss: Client, make_execution: Callable[..., JobExecution]
) -> None:
    queued, failed = make_execution(State.QUEUED).job, make_execution(State.FAILED).job
    assert "1 canceled" in press(boss, Job, "cancel", queued)
    assert Job.objects.get(pk=queued.pk).status == "CANCELED"
    assert "1 requeued" in press(boss, Job, "requeue", failed)
    assert failed.executions.count() == 2


def test_what_a_service_refuses_is_shown_and_the_others_are_done(
    boss: Client, make_execution: Callable[..., JobExecution]
) -> None:
    queued, done = make_execution(State.QUEUED).job, make_execution(State.COMPLETED).job
    page = press(boss, Job, "cancel", done, queued)
    assert "1 canceled" in page
    assert "cannot be canceled" in page


def test_nodes_types_and_the_scheduler_are_paused_and_resumed(
    boss: Client, make_node: Callable[..., Node], make_job_type: Callable[..., JobType]
) -> None:
    for model, row in [
        (Node, make_node()),
        (JobType, make_job_type()),
        (SchedulerState, SchedulerState.objects.get()),
    ]:
        press(boss, model, "pause", row)
        assert model.objects.get(pk=row.pk).is_paused
        press(boss, model, "resume", row)
        assert not model.objects.get(pk=row.pk).is_paused


def test_buttons_need_the_permission_to_change(
    client: Client, make_execution: Callable[..., JobExecution]
) -> None:
    viewer = User.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_job"))
    client.force_login(viewer)
    job = make_execution(State.QUEUED).job
    press(client, Job, "cancel", job)
    assert Job.objects.get(pk=job.pk).status == "QUEUED"
