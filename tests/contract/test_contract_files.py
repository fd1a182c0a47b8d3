"""Section 8: reading sandboxes over HTTP."""

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from contract_cluster import Answer, Cluster, wait_for
from contract_framework import Framework

SCRIPT = (
    "printf 'line 1\\nline 2\\nline 3\\n'; printf 'a\\200\\377\\000\\303\\251z' > binary; "
    "head -c 200000 /dev/zero | tr '\\0' x > big; mkdir folder; : > empty; "
    "ln -s /etc/passwd out; ln -s stdout in; ln -s / rootdir; mkfifo fifo"
)


class Sandbox:
    """One finished task's files."""

    def __init__(self, framework: Framework) -> None:
        self.cluster = framework.cluster
        task = framework.launch(SCRIPT)
        status = framework.run_until(task)
        assert status["state"] == "TASK_FINISHED", status
        self.agent = self.cluster.agents()[task["agent_id"]["value"]]
        self.path = framework.sandbox(task)

    def get(self, endpoint: str, name: str = "/stdout", **query: Any) -> Answer:
        text = urlencode({"path": self.path + name, **query})
        return self.cluster.get(f"/files/{endpoint}?{text}", to=self.agent)

    def post(self, kind: str, name: str, **more: Any) -> Answer:
        call = {"type": kind, kind.lower(): {"path": self.path + name, **more}}
        return self.cluster.post("/api/v1", call, to=self.agent)


@pytest.fixture(scope="module")
def sandbox(cluster: Cluster) -> Any:
    framework = Framework(cluster, name="files").subscribe()
    made = Sandbox(framework)
    framework.disconnect()  # what it is offered is for the tests' own frameworks
    yield made
    framework.subscribe().close()


CONTENT = "line 1\nline 2\nline 3\n"


@pytest.mark.parametrize(
    ("query", "data", "offset"),
    [
        ({}, "", 21),
        ({"offset": -1}, "", 21),
        ({"offset": 0}, CONTENT, 0),
        ({"offset": 0, "length": -1}, CONTENT, 0),
        ({"offset": 7, "length": 6}, "line 2", 7),
        ({"offset": 0, "length": 0}, "", 0),
        ({"offset": 21}, "", 21),
        ({"offset": 10000000}, "", 10000000),
    ],
)
def test_read_gives_a_part_and_tells_where_it_starts(
    sandbox: Sandbox, query: dict[str, Any], data: str, offset: int
) -> None:
    answer = sandbox.get("read", **query)
    assert (answer.status, answer.json) == (200, {"data": data, "offset": offset})


def test_read_gives_at_most_64_kib(sandbox: Sandbox) -> None:
    assert len(sandbox.get("read", "/big", offset=0).json["data"]) == 65536
    assert len(sandbox.get("read", "/big", offset=0, length=100000).json["data"]) == 65536
    assert len(sandbox.get("read", "/big", offset=150000).json["data"]) == 50000


def test_every_byte_survives_a_surrogate_escaping_reader(sandbox: Sandbox) -> None:
    body = sandbox.get("read", "/binary", offset=0).body
    text = json.loads(body.decode("utf-8", "surrogateescape"))["data"]
    assert text.encode("utf-8", "surrogateescape") == b"a\x80\xff\x00\xc3\xa9z"
    cut = sandbox.get("read", "/binary", offset=4, length=1).body
    assert b'"\xc3"' in cut


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"offset": "abc"}, "Failed to parse offset: Failed to convert 'abc' to number.\n"),
        ({"offset": -5}, "Negative offset provided: -5.\n"),
        ({"offset": 0, "length": -2}, "Negative length provided: -2.\n"),
    ],
)
def test_read_refuses_bad_numbers(sandbox: Sandbox, query: dict[str, Any], text: str) -> None:
    answer = sandbox.get("read", **query)
    assert (answer.status, answer.text) == (400, text)


def test_read_refuses_what_is_not_a_file(sandbox: Sandbox) -> None:
    answer = sandbox.get("read", "/folder")
    assert (answer.status, answer.text) == (400, "Cannot read a directory.\n")
    assert sandbox.get("read", "/missing").status == 404
    for endpoint in ("read", "browse", "download"):
        answer = sandbox.cluster.get(f"/files/{endpoint}", to=sandbox.agent)
        assert (answer.status, answer.text) == (400, "Expecting 'path=value' in query.\n")


@pytest.mark.local_mesos("guarded")
def test_a_fifo_is_not_waited_for(sandbox: Sandbox) -> None:
    assert sandbox.get("read", "/fifo", offset=0).status == 400
    assert sandbox.post("READ_FILE", "/fifo", offset=0).status == 400


def test_jsonp_wraps_the_answer(sandbox: Sandbox) -> None:
    answer = sandbox.get("read", offset=0, length=5, jsonp="cb")
    assert answer.text == 'cb({"data":"line ","offset":0})'


def test_browse_lists_a_folder_sorted_and_a_file_as_nothing(sandbox: Sandbox) -> None:
    listed = sandbox.get("browse", "").json
    names = [each["path"].removeprefix(sandbox.path + "/") for each in listed]
    assert names == sorted(names)
    stdout = next(each for each in listed if each["path"].endswith("/stdout"))
    assert (stdout["size"], stdout["mode"], stdout["nlink"]) == (21, "-rw-r--r--", 1)
    assert isinstance(stdout["mtime"], float)
    assert sandbox.get("browse", "/").json[0]["path"] == listed[0]["path"]
    assert sandbox.get("browse", "/stdout").json == []
    missing = sandbox.get("browse", "/missing")
    assert (missing.status, missing.body) == (404, b"")


def test_download_gives_the_whole_file(sandbox: Sandbox) -> None:
    answer = sandbox.get("download", "/big")
    assert answer.body == b"x" * 200000
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=")
    assert answer.headers["Date"].endswith(" GMT")
    assert sandbox.get("download", "/empty").body == b""
    assert sandbox.get("download", "/missing").status == 404


def test_read_file_gives_base64_and_the_size(sandbox: Sandbox) -> None:
    got = sandbox.post("READ_FILE", "/stdout", offset=7, length=6).json
    assert got["type"] == "READ_FILE"
    assert got["read_file"] == {"size": 21, "data": base64.b64encode(b"line 2").decode()}
    assert sandbox.post("READ_FILE", "/stdout", offset=30).json["read_file"]["data"] == ""
    whole = sandbox.post("READ_FILE", "/binary", offset=0).json["read_file"]
    assert base64.b64decode(whole["data"]) == b"a\x80\xff\x00\xc3\xa9z"
    assert sandbox.post("READ_FILE", "/missing", offset=0).status == 404
    assert sandbox.post("READ_FILE", "/folder", offset=0).status == 400
    assert sandbox.post("READ_FILE", "/stdout").status == 400


def test_list_files_gives_the_v1_form(sandbox: Sandbox) -> None:
    listed = sandbox.post("LIST_FILES", "").json["list_files"]["file_infos"]
    stdout = next(each for each in listed if each["path"].endswith("/stdout"))
    assert (stdout["size"], stdout["mode"]) == (21, 33188)
    assert stdout["mtime"]["nanoseconds"] > 10**18
    assert sandbox.post("LIST_FILES", "/missing").status == 404


@pytest.mark.parametrize(
    "name",
    [
        "/out",
        "/rootdir/etc/passwd",
        "/../../../../../../../../../../../etc/passwd",
        "/../latest/../../../../../../../../../../../etc/passwd",
        "/stdout/../../../../runs",
    ],
)
def test_nothing_outside_the_sandbox_can_be_read(sandbox: Sandbox, name: str) -> None:
    for endpoint in ("read", "browse", "download"):
        answer = sandbox.get(endpoint, name, offset=0)
        assert answer.status in (400, 403, 404)
        assert b"root:" not in answer.body
    assert sandbox.post("READ_FILE", name, offset=0).status in (400, 403, 404)


@pytest.mark.parametrize("path", ["/", "/etc/passwd", "/frameworks", "stdout", "/frameworks/../.."])
def test_only_sandboxes_are_served(sandbox: Sandbox, path: str) -> None:
    answer = sandbox.cluster.get(f"/files/browse?path={quote(path)}", to=sandbox.agent)
    assert answer.status == 404


def test_links_inside_the_sandbox_and_the_real_path_work(sandbox: Sandbox) -> None:
    assert sandbox.get("read", "/in", offset=0, length=6).json["data"] == "line 1"
    virtual = sandbox.cluster.get("/files/debug", to=sandbox.agent).json
    real = virtual[sandbox.path]
    assert virtual[real] == virtual[f"{real.rpartition('/')[0]}/latest"] == real
    for path in (real, f"{real.rpartition('/')[0]}/latest"):
        query = urlencode({"path": f"{path}/stdout", "offset": 0, "length": 6})
        answer = sandbox.cluster.get(f"/files/read?{query}", to=sandbox.agent)
        assert answer.json["data"] == "line 1"


def test_a_sandbox_can_still_be_read_after_its_framework_was_torn_down(
    framework: Framework,
) -> None:
    task = framework.launch("echo kept")
    framework.run_until(task)
    framework.call("TEARDOWN")
    framework.until(lambda event: event["type"] == "CLOSED")
    assert framework.output(task) == "kept\n"
    framework.stream_id = ""


@pytest.mark.local_mesos("periods")
def test_an_old_sandbox_is_deleted_and_then_404(
    start_local: Callable[..., Cluster], make_framework: Callable[..., Framework]
) -> None:
    cluster = start_local("--gc-delay-s", "1")
    framework = make_framework(cluster).subscribe()
    task = framework.launch("sleep 100")
    framework.run_until(task, "TASK_RUNNING")
    agent = cluster.agents()[task["agent_id"]["value"]]
    url = f"/files/browse?path={framework.sandbox(task)}"
    assert cluster.get(url, to=agent).status == 200
    framework.call("KILL", kill={"task_id": task["task_id"]})
    framework.run_until(task)
    framework.call("REVIVE")
    alive = framework.launch("sleep 100")
    framework.run_until(alive, "TASK_RUNNING")
    wait_for(lambda: cluster.get(url, to=agent).status == 404, "the deletion")
    assert cluster.get(f"/files/browse?path={framework.sandbox(alive)}", to=agent).status == 200
