"""Our description of the interface, held against a real web process by tools that only read it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from django.conf import settings
from django.utils import timezone
from knox.models import AuthToken
from served import narrowed, served

from scale.core.lifecycle import State
from scale.error.models import Error
from scale.job.asked import BulkAction
from scale.job.files import store_file
from scale.job.models import JobExecution
from scale.node.models import Node
from scale.scheduler.models import SchedulerState

# Each takes about 20 s of a machine that has nothing else to do.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]
# Documents of job types, and rules between fields, are more than a JSON schema can say.
NOT_ASKED = "positive_data_acceptance"
#: With `coverage` besides it makes 5,600 requests, in minutes.
PHASES = os.environ.get("SCHEMATHESIS_PHASES", "examples,fuzzing")


@pytest.fixture
def token(make_user: Callable[..., Any]) -> str:
    return str(AuthToken.objects.create(make_user(is_superuser=True))[1])


@pytest.fixture
def url(transactional_db: None, tmp_path: Path) -> Iterator[str]:
    with served(tmp_path, SCALE_STORAGE_DIR=str(settings.SCALE_STORAGE_DIR)) as url:
        yield url


@pytest.fixture
def ids(
    make_execution: Callable[..., JobExecution], make_node: Callable[..., Node]
) -> dict[str, int]:
    """Make one thing of each kind; return their ids by the first word of their paths."""
    make_execution(State.FAILED)
    make_execution(State.QUEUED)
    # Of one that never ran all logs are whole: a stream of them ends.
    canceled = make_execution(State.CANCELED)
    now = timezone.now()
    # Else all is 503 that asks how the scheduler is.
    SchedulerState.objects.update(heartbeat=now + timedelta(minutes=10), is_connected=True)
    file = store_file(
        name="a.txt", media_type="text/plain", stream=BytesIO(b"text"), at=now, max_bytes=9
    )
    action = BulkAction.objects.create(
        kind="cancel", filters={}, created=now, finished=now, last_id=0
    )
    error = Error.objects.create(name="e", title="E", description="E.", category="DATA")
    return {
        "jobs": canceled.job_id,
        "job-executions": canceled.pk,
        "job-types": canceled.job_type_id,
        "nodes": make_node().pk,
        "errors": error.pk,
        "files": file.pk,
        "bulk-actions": action.pk,
    }


def operations_of(document: dict[str, Any]) -> set[str]:
    return {each["operationId"] for path in document["paths"].values() for each in path.values()}


def document_of(url: str) -> dict[str, Any]:
    with urlopen(f"{url}/schema/", timeout=20) as answer:
        document: dict[str, Any] = json.load(answer)
    return document


def test_schemathesis_finds_nothing_undocumented(
    url: str, token: str, ids: dict[str, int], tmp_path: Path
) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(narrowed(document_of(url), ids)))
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", str(document)),
        *("--url", url, "-H", f"Authorization: Token {token}"),
        *("--checks", "all", "--exclude-checks", NOT_ASKED),
        *("--phases", PHASES, "--max-examples", "6"),
        *("--seed", "1", "--generation-deterministic", "--no-shrink", "--workers", "1"),
        *("--warnings", "off", "--continue-on-failure"),
        *("--request-timeout", "20", "--no-color"),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=280)
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr
    assert token not in ran.stdout


# What somebody who uses the client would write; mypy reads it, then it runs.
SCRIPT = """
import sys
from datetime import datetime

from scale_client import AuthenticatedClient
from scale_client.api.job_executions import list_job_executions
from scale_client.api.jobs import submit_job
from scale_client.models import ExecutionStatus, JobBody, JobDetails, JobInExecution, Problem
from scale_client.types import Unset


def main(url: str, token: str, job_type: int) -> None:
    client = AuthenticatedClient(base_url=url, token=token, prefix="Token")
    made = submit_job.sync(client=client, body=JobBody(job_type_id=job_type, priority=5))
    assert isinstance(made, JobDetails), made
    print(made.id, made.status.value, made.job_type.name, made.job_exes[0].exe_num)
    page = list_job_executions.sync(client=client, page_size=1000)
    assert page is not None and not isinstance(page, Problem)
    for execution in page.results:
        # A list can be asked for some fields only; here all are there.
        assert isinstance(execution.status, ExecutionStatus)
        assert isinstance(execution.job, JobInExecution)
        ended = execution.ended.isoformat() if isinstance(execution.ended, datetime) else "-"
        print(execution.id, execution.status.value, execution.job.id, ended)
    refused = submit_job.sync(client=client, body=JobBody())
    assert isinstance(refused, Problem), refused
    print(refused.code, "" if isinstance(refused.field, Unset) else refused.field)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


def test_a_client_made_from_the_schema_type_checks_and_works(
    url: str, token: str, ids: dict[str, int], tmp_path: Path
) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(document_of(url)))
    settings_of_generator = tmp_path / "generator.yaml"
    settings_of_generator.write_text("post_hooks: []\n")
    tools = Path(sys.executable).parent
    run(
        [
            tools / "openapi-python-client",
            "generate",
            "--path",
            document,
            "--meta",
            "none",
            "--output-path",
            tmp_path / "scale_client",
            "--config",
            settings_of_generator,
        ],
        tmp_path,
    )
    made = {path.stem for path in (tmp_path / "scale_client" / "api").glob("*/*.py")}
    assert operations_of(document_of(url)) <= made
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run(
        [
            tools / "mypy",
            "--strict",
            "--config-file=",
            "--cache-dir",
            tmp_path / "types",
            "scale_client",
            script,
        ],
        tmp_path,
    )
    said = run([sys.executable, script, url, token, str(ids["job-types"])], tmp_path)
    first, *listed, last = said.splitlines()
    job, status, *_ = first.split()
    assert status == "QUEUED"
    assert {line.split()[2] for line in listed} >= {job, str(ids["jobs"])}
    assert last == "invalid job_type"


def run(command: list[Any], folder: Path) -> str:
    ran = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=folder, timeout=250
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
