"""What a job type takes, and what becomes of a job that is asked for."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import DataError, transaction
from scheduled import NOON, THREE_PHASES, make_type, statements, submit

from scale.core.errors import InvalidInput, NotAllowedNow
from scale.error.models import Error
from scale.job.models import ExecutionEvent, File, Job, JobExecution, JobType, TriggerEvent
from scale.job.submission import MAX_INPUT_FILES, JobRequest, create_job_type, submit_jobs

pytestmark = pytest.mark.django_db


@pytest.fixture
def make_file(db: None) -> Callable[..., File]:
    def make(name: str = "a.txt", size: int = 10) -> File:
        return File.objects.create(
            name=name,
            size=size,
            media_type="text/plain",
            sha256="0" * 64,
            storage_name=f"x/{File.objects.count()}",
            created=NOON,
        )

    return make


def typed(value_type: str = "string", **item: Any) -> JobType:
    given = {"name": "x", "type": "property", "value_type": value_type, **item}
    return make_type({"command": "true", "input_data": [given]})


def taking(kind: str, **item: Any) -> JobType:
    return make_type({"command": "true", "input_data": [{"name": "x", "type": kind, **item}]})


# --- job types ------------------------------------------------------------------------------------


def test_a_job_type_has_its_first_revision() -> None:
    job_type = make_type(THREE_PHASES)
    revision = job_type.revisions.get()
    assert (revision.revision_num, revision.interface) == (1, dict(THREE_PHASES))


def test_a_name_and_version_are_taken_once() -> None:
    make_type(name="a", version="1")
    make_type(name="a", version="2")
    with pytest.raises(NotAllowedNow, match="a 1 exists already"):
        make_type(name="a", version="1")
    assert JobType.objects.count() == 2


def test_an_error_of_the_mapping_must_exist() -> None:
    mapping = {"exit_codes": {"1": "unknown", "3": "bad-data"}}
    with pytest.raises(InvalidInput, match="bad-data") as refused:
        make_type(error_mapping=mapping)
    assert refused.value.field == "error_mapping.exit_codes.3"
    Error.objects.create(name="bad-data", category="DATA")
    make_type(error_mapping=mapping)


@pytest.mark.parametrize(
    ("field", "documents"),
    [
        ("interface", {"interface": {}}),
        ("environment", {"environment": []}),
        ("environment", {"environment": {"1X": "a"}}),
        ("environment", {"environment": {"A-B": "a"}}),
        ("environment", {"environment": {"A\n": "a"}}),
        ("environment", {"environment": {"SCALE_JOB_ID": "a"}}),
        ("environment", {"environment": {"MESOS_SANDBOX": "a"}}),
        ("environment.A", {"environment": {"A": 5}}),
        ("environment.A", {"environment": {"A": "a\0"}}),
        ("environment.A", {"environment": {"A": "\ud800"}}),
        ("environment", {"environment": {"A" * 256: "a"}}),
        ("environment", {"environment": dict.fromkeys("ABC", "ä" * 20000)}),
        ("volumes", {"volumes": {}}),
        ("volumes", {"volumes": [{"container_path": "/a", "host_path": "/b"}] * 101}),
        ("volumes[0]", {"volumes": ["x"]}),
        ("volumes[0]", {"volumes": [{"container_path": "/a", "host_path": "/b", "x": 1}]}),
        ("volumes[0].host_path", {"volumes": [{"container_path": "/a"}]}),
        ("volumes[0].container_path", {"volumes": [{"container_path": "a", "host_path": "/b"}]}),
        ("volumes[0].host_path", {"volumes": [{"container_path": "/a", "host_path": "/b/../c"}]}),
        ("volumes[0].host_path", {"volumes": [{"container_path": "/a", "host_path": "/b:rw"}]}),
        (
            "volumes[0].host_path",
            {"volumes": [{"container_path": "/a", "host_path": "/" + "b" * 4096}]},
        ),
        *(
            (
                "volumes[0].mode",
                {"volumes": [{"container_path": "/a", "host_path": "/b", "mode": mode}]},
            )
            for mode in ("X", None, 1, ["RO"], {})
        ),
    ],
)
def test_a_bad_job_type_is_refused_by_field_and_leaves_nothing(
    field: str, documents: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        create_job_type(
            {"name": "a", "version": "1", "interface": {"command": "true"}, **documents}
        )
    assert refused.value.field == field
    assert not JobType.objects.exists()


# --- inputs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value_type", "value"),
    [
        ("string", ""),
        ("string", "it's ü \n $(x)"),
        ("string", "x" * 30_000),
        ("number", 0),
        ("number", -1.5),
        ("number", 10**30),
        ("boolean", False),
    ],
)
def test_a_good_value_is_stored_as_it_is(value_type: str, value: object) -> None:
    execution = submit(typed(value_type), {"x": value})
    stored = Job.objects.get(pk=execution.job_id).data
    assert stored == {
        "version": "1.0",
        "input_data": [{"name": "x", "value": value}],
        "output_data": [],
    }


@pytest.mark.parametrize(
    ("value_type", "value", "reason"),
    [
        ("string", 5, "must be a string"),
        ("string", ["a"], "must be a string"),
        ("string", "a\0b", "NUL"),
        ("string", "\ud800", "not text"),
        ("string", "x" * 30_001, "at most 30000"),
        ("number", "5", "must be a number"),
        ("number", True, "must be a number"),
        ("number", float("nan"), "finite"),
        ("number", float("inf"), "finite"),
        ("boolean", 1, "must be a boolean"),
        ("boolean", {"file_id": 1}, "must be a boolean"),
    ],
)
def test_a_bad_value_is_refused_with_the_name_of_the_input(
    value_type: str, value: object, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason) as refused:
        submit(typed(value_type), {"x": value})
    assert refused.value.field == "inputs.x"
    assert not Job.objects.exists()


def test_a_value_counts_as_often_as_the_command_line_has_it() -> None:
    names = ("x", "y")
    interface = {
        "command": "true",
        "command_arguments": "${x} -v ${x} ${-w=:x} ${y} ${y} ${y} ${y} ${y}",
        "input_data": [{"name": name, "type": "property", "required": False} for name in names],
    }
    job_type, most = make_type(interface), 30_000
    submit(job_type, {"x": "a" * most})
    submit(job_type, {"x": "a" * most, "y": "a" * 1000})
    for more in ({"y": "a" * most}, {"x": "a" * most, "y": "a" * 3000}, {"x": "'" * most}):
        with pytest.raises(InvalidInput, match="together exceed") as refused:
            submit(job_type, more)
        assert refused.value.field == "inputs"
    assert Job.objects.count() == 2


def test_what_is_required_must_be_there_and_defaults_fill_in() -> None:
    for inputs in ({}, {"x": None}):
        with pytest.raises(InvalidInput, match=r"inputs\.x: is required"):
            submit(typed(), inputs)
    optional = typed("number", required=False, default=4)
    assert submit(optional).job.data["input_data"] == [{"name": "x", "value": 4}]
    assert submit(optional, {"x": 0}).job.data["input_data"] == [{"name": "x", "value": 0}]
    assert submit(typed(required=False)).job.data["input_data"] == []


def test_an_input_that_the_type_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no such input") as refused:
        submit(typed(required=False), {"y": 1})
    assert refused.value.field == "inputs.y"


def test_files_are_taken_by_id_or_uri(make_file: Callable[..., File]) -> None:
    file = make_file(size=5)
    uri = "https://example.org/a%20b.txt?x=1"
    for given in ({"file_id": file.pk}, {"uri": uri}, {"uri": "file:///data/x"}):
        assert submit(taking("file"), {"x": given}).job.data["input_data"] == [
            {"name": "x", **given}
        ]
    listed = [{"file_id": file.pk}, {"uri": uri}, {"file_id": file.pk}]
    entries = [{"name": "x", "files": listed}]
    assert submit(taking("files"), {"x": listed}).job.data["input_data"] == entries
    one = submit(taking("files"), {"x": {"uri": uri}}).job.data["input_data"]
    assert one == [{"name": "x", "files": [{"uri": uri}]}]


@pytest.mark.parametrize(
    "value",
    [
        5,
        "https://example.org/a",
        [],
        [{"uri": "https://example.org/a"}],
        {},
        {"file_id": 424242},
        {"file_id": 10**30},
        {"file_id": -1},
        {"file_id": True},
        {"file_id": "1"},
        {"file_id": 1.0},
        {"file_id": 1, "uri": "https://example.org/a"},
        {"uri": 5},
        {"uri": ""},
        {"uri": "ftp://example.org/a"},
        {"uri": "https:///a"},
        {"uri": "https://example.org:port/a"},
        {"uri": "http://[::1/a"},
        {"uri": "https://ada:secret@example.org/a"},
        {"uri": "https://ada@example.org/a"},
        {"uri": "https://example.org/a b"},
        {"uri": "https://example.org/a\n"},
        {"uri": "https://example.org/%2e%2e"},
        {"uri": "https://example.org/a/.."},
        {"uri": "file://host/data"},
        {"uri": "file:data"},
        {"uri": "https://example.org/" + "x" * 4000},
    ],
)
def test_a_bad_file_is_refused_with_the_name_of_the_input_and_no_secret(value: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        submit(taking("file"), {"x": value})
    assert refused.value.field == "inputs.x"
    assert "secret" not in str(refused.value)


def test_a_bad_file_of_several_is_named_by_its_place() -> None:
    with pytest.raises(InvalidInput) as refused:
        submit(taking("files"), {"x": [{"uri": "https://example.org/a"}, {"file_id": 7}]})
    assert refused.value.field == "inputs.x[1]"
    for value in ([], [{"uri": "https://example.org/a"}] * (MAX_INPUT_FILES + 1)):
        with pytest.raises(InvalidInput, match=r"inputs\.x: must be a list of 1 to"):
            submit(taking("files"), {"x": value})


# --- what becomes of it ---------------------------------------------------------------------------


def test_a_job_takes_its_terms_from_its_type_and_waits_in_the_queue() -> None:
    job_type = make_type(priority=7, timeout=99, max_tries=4, cpus_required=0.5, mem_required=1.5)
    execution = submit(job_type, name="mine")
    job = execution.job
    assert (job.status, job.name, job.priority, job.num_exes) == ("QUEUED", "mine", 7, 1)
    assert (job.timeout, job.max_tries, execution.timeout) == (99, 4, 99)
    assert (job.created, job.queued, execution.queued) == (NOON, NOON, NOON)
    assert (execution.state, execution.phase, execution.exe_num) == ("queued", "job", 1)
    assert (execution.needs_millicpus, execution.needs_mem_mib, execution.needs_disk_mib) == (
        500,
        2,
        10,
    )
    assert job.event.description == {"user": "ada"}
    assert [each.event for each in execution.history.all()] == [ExecutionEvent.CREATE]
    assert submit(job_type, priority=0).priority == 0


def test_disk_is_what_the_inputs_need_and_the_outputs_may(make_file: Callable[..., File]) -> None:
    mib = 1024 * 1024
    job_type = make_type(
        {"command": "true", "input_data": [{"name": "x", "type": "files"}]},
        disk_out_const_required=10.5,
        disk_out_mult_required=1.5,
        mem_required=20,
    )
    files = [{"file_id": make_file(size=size).pk} for size in (mib, mib + 1)]
    execution = submit(job_type, {"x": [*files, {"uri": "https://example.org/a"}]})
    job = execution.job
    assert (job.disk_in_required, job.disk_out_required) == (3.0, 15.0)
    assert execution.needs_disk_mib == 18
    assert execution.needs_mem_mib == 64, "as much as the steps program needs"


@pytest.mark.parametrize(
    ("cpus", "millicpus"), [(0.1, 100), (0.3, 300), (1.1, 1100), (0.0001, 1), (2.0005, 2001)]
)
def test_cpus_are_whole_thousandths(cpus: float, millicpus: int) -> None:
    assert submit(make_type(cpus_required=cpus)).needs_millicpus == millicpus


def test_an_inactive_type_takes_no_jobs() -> None:
    job_type = make_type()
    JobType.objects.update(is_active=False)
    with pytest.raises(NotAllowedNow, match="not active"):
        submit(JobType.objects.get(pk=job_type.pk))


def test_several_jobs_are_stored_all_or_none() -> None:
    job_type = typed("number")
    good, bad = JobRequest(job_type, {"x": 1}), JobRequest(job_type, {"x": "one"})
    with pytest.raises(InvalidInput) as refused:
        submit_jobs([good, good, bad], user="ada", at=NOON)
    assert refused.value.field == "[2].inputs.x"
    for model in (Job, JobExecution, TriggerEvent, ExecutionEvent):
        assert not model.objects.exists()
    assert len(submit_jobs([good, good], user="ada", at=NOON)) == 2
    assert JobExecution.objects.count() == ExecutionEvent.objects.count() == 2
    assert TriggerEvent.objects.count() == 1


def test_jobs_that_cannot_be_queued_are_not_stored() -> None:
    job_type = make_type()
    good, bad = JobRequest(job_type), JobRequest(job_type, priority=2**31)
    with pytest.raises(DataError), transaction.atomic():
        submit_jobs([good] * 500 + [bad] + [good] * 499, user="ada", at=NOON)
    for model in (Job, JobExecution, TriggerEvent, ExecutionEvent):
        assert not model.objects.exists()


def test_many_jobs_take_as_many_statements_as_one(make_file: Callable[..., File]) -> None:
    job_type = taking("file")
    counts = []
    for number in (1, 40):
        wanted = [JobRequest(job_type, {"x": {"file_id": make_file().pk}}) for _ in range(number)]
        with statements() as sent:
            submit_jobs(wanted, user="ada", at=NOON)
        counts.append(sent.count)
    assert counts[0] == counts[1] <= 15
