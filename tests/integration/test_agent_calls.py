"""What the steps program calls: only with the token of the task that runs now."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import default_storage
from django.test import Client
from django.utils import timezone
from log_world import THREE_PHASES, FakeAgent, Life, make_node, running_agent

from scale.core.lifecycle import Event
from scale.job import tokens
from scale.job.files import store_file
from scale.job.models import File, JobExecution

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def stored_in(tmp_path: Path, settings: Any) -> Path:
    folder = tmp_path / "stored"
    storages = {**settings.STORAGES}
    storages["default"] = {**storages["default"], "OPTIONS": {"location": folder}}
    settings.STORAGES = storages
    return folder


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    with running_agent(tmp_path / "agent") as agent:
        yield agent


@pytest.fixture
def given() -> File:
    return stored(b"some text")


@pytest.fixture
def life(agent: FakeAgent, given: File) -> Life:
    return Life(make_node(agent), agent, THREE_PHASES, {"text": {"file_id": given.pk}})


class Steps:
    """The steps program of the task that runs for an execution now."""

    def __init__(self, life: Life, client: Client) -> None:
        self.life, self.client = life, client
        self.token = tokens.issue(life.row.uuid, life.row.task_id)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Any:
        given = {"Authorization": f"Bearer {self.token}", **headers}
        return self.client.generic(
            method,
            f"/agent/executions/{self.life.row.uuid}/{path}",
            body,
            content_type=headers.pop("Content-Type", "application/json"),
            headers=given,
        )

    def put(self, body: bytes, output: str = "out", name: str = "out.txt", **headers: str) -> Any:
        return self.ask("PUT", f"outputs/?output={output}&name={name}", body, **headers)

    def tell(self, path: str, document: Any) -> Any:
        return self.ask("POST", path, json.dumps(document).encode())

    def results(self, *outputs: Any, removed: Any = True, manifest: Any = None) -> Any:
        document = {"results_manifest": {} if manifest is None else manifest}
        return self.tell("results/", {**document, "outputs": outputs, "folder_removed": removed})


@pytest.fixture
def pre(life: Life, client: Client) -> Steps:
    return Steps(life.start(), client)


@pytest.fixture
def post(life: Life, client: Client) -> Steps:
    return Steps(life.start().hold().start().hold().start(), client)


def stored(content: bytes, name: str = "text.txt") -> File:
    return store_file(
        name=name,
        media_type="text/plain",
        stream=io.BytesIO(content),
        at=timezone.now(),
        max_bytes=10**6,
    )


def row(steps: Steps) -> JobExecution:
    return JobExecution.objects.get(pk=steps.life.pk)


def test_the_program_is_open_to_all_and_cached(client: Client) -> None:
    answer = client.get("/agent/steps.pyz")
    assert zipfile.is_zipfile(io.BytesIO(answer.content))
    again = client.get("/agent/steps.pyz", headers={"If-None-Match": answer["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.post("/agent/steps.pyz").status_code == 405


def test_orders_say_what_to_bring_and_to_take(pre: Steps, given: File, settings: Any) -> None:
    settings.SCALE_MAX_OUTPUT_MIB = 3
    orders = pre.ask("GET", "orders/").json()
    assert orders["execution"] == str(pre.life.row.uuid)
    assert orders["max_output_bytes"] == 3 * 1024 * 1024
    [wanted] = orders["inputs"]
    assert (wanted["stored"], wanted["size"], wanted["sha256"]) == (True, 9, given.sha256)
    assert wanted["uri"].endswith(f"/agent/executions/{pre.life.row.uuid}/inputs/{given.pk}/")
    assert [output["name"] for output in orders["outputs"]] == ["out", "parts"]


def test_an_input_comes_with_its_length(pre: Steps, given: File) -> None:
    answer = pre.ask("GET", f"inputs/{given.pk}/")
    assert (b"".join(answer.streaming_content), answer["Content-Length"]) == (b"some text", "9")
    assert answer["X-Content-Type-Options"] == "nosniff"


def test_no_other_file_is_an_input(pre: Steps) -> None:
    other = stored(b"of somebody else")
    assert pre.ask("GET", f"inputs/{other.pk}/").status_code == 404
    assert pre.ask("GET", "inputs/999999/").status_code == 404


def test_an_input_whose_bytes_are_gone_is_not_found(pre: Steps, given: File) -> None:
    default_storage.delete(given.storage_name)
    assert pre.ask("GET", f"inputs/{given.pk}/").status_code == 404


def every_call(steps: Steps) -> list[int]:
    return [
        steps.ask("GET", "orders/").status_code,
        steps.ask("GET", "inputs/1/").status_code,
        steps.put(b"x").status_code,
        steps.results().status_code,
        steps.tell("failure/", {"phase": "pre", "message": "m"}).status_code,
    ]


@pytest.mark.parametrize(
    "token",
    ["", "junk", "a:b:c", "é", "x" * 10_000, "of another execution", "of another task"],
)
def test_without_the_tasks_own_token_nothing_is_answered(
    pre: Steps, agent: FakeAgent, token: str
) -> None:
    if token == "of another execution":
        other = Life(pre.life.node, agent, THREE_PHASES).start().row
        token = tokens.issue(other.uuid, other.task_id)
    elif token == "of another task":
        token = tokens.issue(pre.life.row.uuid, f"{pre.life.row.uuid}.pre.9")
    pre.token = token
    assert every_call(pre) == [401] * 5
    assert pre.ask("GET", "orders/")["WWW-Authenticate"] == "Bearer"


def test_a_users_token_and_a_session_are_no_task(pre: Steps, admin_client: Client) -> None:
    pre.client = admin_client
    pre.token = ""
    assert every_call(pre) == [401] * 5


@pytest.mark.parametrize(
    "ending",
    [Event.HOLD, Event.FAIL, Event.BOUNCE],
)
def test_a_token_dies_with_its_task(life: Life, client: Client, ending: Event) -> None:
    life.launch()
    steps = Steps(life, client)
    assert steps.ask("GET", "orders/").status_code == 200
    life.move(ending, error="node-lost" if ending is Event.FAIL else None)
    assert every_call(steps) == [401] * 5


def test_the_job_phase_has_no_calls(life: Life, client: Client) -> None:
    life.start().hold().start()
    assert every_call(Steps(life, client)) == [401] * 5


def test_an_output_is_stored_for_its_execution(post: Steps) -> None:
    checksum = hashlib.sha256(b"42\n").hexdigest()
    answer = post.put(b"42\n", **{"X-Checksum-Sha256": checksum, "Content-Type": "text/plain"})
    assert answer.status_code == 201
    file = File.objects.get(pk=answer.json()["file_id"])
    assert (file.execution_id, file.output_name, file.name) == (post.life.pk, "out", "out.txt")
    assert (file.size, file.sha256, file.media_type) == (3, checksum, "text/plain")
    with default_storage.open(file.storage_name) as content:
        assert content.read() == b"42\n"


def test_storing_again_replaces(post: Steps, stored_in: Path) -> None:
    first, second = post.put(b"one").json(), post.put(b"two!").json()
    assert first == second
    assert File.objects.get(pk=first["file_id"]).size == 4


@pytest.mark.parametrize(
    ("path", "headers", "status", "field"),
    [
        ("outputs/?output=other&name=x", {}, 400, "output"),
        ("outputs/?name=x", {}, 400, "output"),
        ("outputs/?output=out", {}, 400, "name"),
        ("outputs/?output=out&name=x&more=1", {}, 400, "more"),
        ("outputs/?output=out&output=parts&name=x", {}, 400, "output"),
        ("outputs/?output=out&name=x", {"X-Checksum-Sha256": "0" * 64}, 400, "sha256"),
        ("outputs/?output=out&name=x", {"X-Checksum-Sha256": "zz"}, 400, "X-Checksum-Sha256"),
    ],
)
def test_an_output_that_does_not_fit_is_refused_whole(
    post: Steps, stored_in: Path, path: str, headers: dict[str, str], status: int, field: str
) -> None:
    answer = post.ask("PUT", path, b"abc", **headers)
    assert (answer.status_code, answer.json()["field"]) == (status, field)
    assert not File.objects.filter(execution=post.life.pk).exists()


def test_outputs_of_an_execution_are_bounded_together(post: Steps, settings: Any) -> None:
    settings.SCALE_MAX_OUTPUT_MIB = 1
    half = b"x" * (600 * 1024)
    assert post.put(half, "parts", "a.part").status_code == 201
    refused = post.put(half, "parts", "b.part")
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert post.put(half, "parts", "a.part").status_code == 201  # it replaces itself
    assert File.objects.filter(execution=post.life.pk).count() == 1


def test_outputs_are_for_the_post_phase(pre: Steps) -> None:
    assert pre.put(b"x").status_code == 409
    assert pre.results().status_code == 409


def test_results_are_stored_and_become_the_jobs(post: Steps) -> None:
    one = post.put(b"1").json()["file_id"]
    parts = [post.put(b"2", "parts", f"{n}.part").json()["file_id"] for n in range(2)]
    answer = post.results(
        {"name": "out", "file_id": one},
        {"name": "parts", "file_ids": parts},
        manifest={"version": "1.1"},
    )
    assert (answer.status_code, answer.content) == (204, b"")
    found = row(post)
    expected = {
        "version": "1.0",
        "output_data": [{"name": "out", "file_id": one}, {"name": "parts", "file_ids": parts}],
    }
    assert (found.results, found.results_manifest) == (expected, {"version": "1.1"})
    assert (found.state, found.cleanup_owed) == ("running", False)
    post.life.finish()
    assert row(post).job.results == expected
    assert not row(post).cleanup_owed


def test_a_folder_that_stayed_is_owed_a_clean_up_after_the_end(post: Steps) -> None:
    assert post.results(removed=False).status_code == 204
    post.life.finish()
    assert row(post).cleanup_owed


@pytest.mark.parametrize(
    ("outputs", "field"),
    [
        ([{"name": "out", "file_id": "FOREIGN"}], "outputs[0].file_id"),
        ([{"name": "out", "file_id": "OF_PARTS"}], "outputs[0].file_id"),
        ([{"name": "out", "file_id": True}], "outputs[0].file_id"),
        ([{"name": "out", "file_id": 2**70}], "body"),  # a number that JSON readers refuse
        ([{"name": "out", "file_ids": []}], "outputs[0]"),
        ([{"name": "parts", "file_id": 1}], "outputs[0]"),
        ([{"name": "parts", "file_ids": 1}], "outputs[0].file_ids"),
        ([{"name": "parts", "file_ids": [None]}], "outputs[0].file_ids"),
        ([{"name": "other", "file_id": 1}], "output"),
        ([{"file_id": 1}], "outputs[0]"),
        (["out"], "outputs[0]"),
        ([{"name": "parts", "file_ids": []}] * 2, "outputs[1]"),
    ],
)
def test_results_that_name_what_is_not_theirs_are_refused(
    post: Steps, outputs: list[Any], field: str
) -> None:
    of_parts = post.put(b"2", "parts", "a.part").json()["file_id"]
    text = json.dumps(outputs).replace('"FOREIGN"', str(stored(b"x").pk))
    answer = post.results(*json.loads(text.replace('"OF_PARTS"', str(of_parts))))
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert row(post).results == {}


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([], "body"),
        ({"results_manifest": [], "outputs": [], "folder_removed": True}, "results_manifest"),
        ({"results_manifest": {}, "outputs": {}, "folder_removed": True}, "outputs"),
        ({"results_manifest": {}, "outputs": [], "folder_removed": 1}, "folder_removed"),
        ({"results_manifest": {"a": "\0"}, "outputs": [], "folder_removed": True}, None),
    ],
)
def test_results_of_the_wrong_shape_are_refused(
    post: Steps, document: Any, field: str | None
) -> None:
    answer = post.tell("results/", document)
    assert answer.status_code == 400
    assert field is None or answer.json()["field"] == field


def test_a_failure_leaves_a_sentence_that_is_safe_to_show(pre: Steps) -> None:
    message = "no \x1b[31minput\r\n\x00\u202e here" + "x" * 2000
    document = json.dumps({"phase": "pre", "message": message.replace("\x00", "")})
    assert pre.ask("POST", "failure/", document.encode()).status_code == 204
    said = row(pre).error_message
    assert said.startswith("no [31minput here")
    assert len(said) == 1000
    pre.tell("failure/", {"phase": "pre", "message": "another"})
    assert row(pre).error_message == said
    pre.life.move(Event.FAIL, error="pull", exit_code=10, message="exit code 10")
    assert row(pre).error_message == said


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"phase": "post", "message": "m"}, 409),
        ({"phase": "job", "message": "m"}, 400),
        ({"phase": "pre", "message": 5}, 400),
        ({"phase": "pre"}, 400),
        ("text", 400),
    ],
)
def test_a_failure_that_makes_no_sense_is_refused(pre: Steps, document: Any, status: int) -> None:
    assert pre.tell("failure/", document).status_code == status
    assert row(pre).error_message == ""


def test_nothing_of_it_is_in_the_schema(api: Any) -> None:
    assert b"/agent/" not in api.get("/schema/").content
