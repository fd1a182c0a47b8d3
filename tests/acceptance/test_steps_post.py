"""The post and cleanup steps, run as agents run them, after good jobs and bad ones."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_steps_web import UUID, Agent, Ended, FakeWeb, Handler, Upload, running_web

from scale.steps.folders import remove_tree

MIB = 2**20


@pytest.fixture
def web() -> Iterator[FakeWeb]:
    with running_web() as web:
        yield web


@pytest.fixture
def agent(web: FakeWeb, tmp_path: Path) -> Agent:
    """An agent on which the job phase has just ended."""
    agent = Agent(web, tmp_path)
    agent.outputs.mkdir(parents=True)
    (agent.work_dir / "inputs").mkdir()
    return agent


def manifest(agent: Agent, *output_data: dict[str, Any], **more: Any) -> None:
    document = {"version": "1.1", "output_data": output_data, **more}
    (agent.outputs / "results_manifest.json").write_text(json.dumps(document))


def failed(agent: Agent, code: int, sentence: str) -> None:
    """Run post; demand exit code and sentence, that Scale was told, and that nothing is lost."""
    ended = agent.run("post")
    assert (ended.code, ended.err.count("\n")) == (code, 1), ended
    assert sentence in ended.err
    assert [failure["phase"] for failure in agent.web.failures] == ["post"]
    assert ended.err == f"steps: {agent.web.failures[0]['message']}\n"
    assert len(ended.err) < 1000
    assert agent.web.results == []
    assert agent.work_dir.exists()


def stored(content: bytes, media_type: str, times: int = 1) -> Upload:
    return Upload(len(content), hashlib.sha256(content).hexdigest(), media_type, times)


def test_outputs_are_stored_reported_and_removed(web: FakeWeb, agent: Agent) -> None:
    agent.declares("count", pattern="count.txt", media_type="text/plain")
    agent.declares("parts", type="files", pattern="parts/*.csv")
    agent.declares("named", required=False)
    agent.declares("printed", pattern="nothing")
    agent.declares("absent", required=False, pattern="*.absent")
    (agent.outputs / "parts").mkdir()
    for name in ("count.txt", "parts/a.csv", "parts/b.csv", "n", "my file\u00e4.json"):
        (agent.outputs / name).write_text(name)
    geo = {"data_started": "2015-01-01T00:00:00Z"}
    manifest(
        agent,
        {"name": "named", "file": {"path": "n", "geo_metadata": geo}},
        {"name": "undeclared", "file": {"path": "/etc/passwd"}},
        parse_results=[{"filename": "in.txt"}],
        errors=["a warning"],
    )
    agent.job_stdout.write_text(
        f"hello\nARTIFACT:printed:{agent.outputs}/my file\u00e4.json\nARTIFACT:named:count.txt\n"
    )
    ended = agent.run("post")
    assert (ended.code, ended.err) == (0, "")
    assert web.uploads == {
        ("count", "count.txt"): stored(b"count.txt", "text/plain"),
        ("parts", "a.csv"): stored(b"parts/a.csv", "text/csv"),
        ("parts", "b.csv"): stored(b"parts/b.csv", "text/csv"),
        ("named", "n"): stored(b"n", "application/octet-stream"),
        ("printed", "my file\u00e4.json"): stored(
            "my file\u00e4.json".encode(), "application/json"
        ),
    }
    assert web.results == [
        {
            "results_manifest": {
                "version": "1.1",
                "output_data": [
                    {"name": "count", "file": {"path": "count.txt"}},
                    {"name": "parts", "files": [{"path": "parts/a.csv"}, {"path": "parts/b.csv"}]},
                    {"name": "named", "file": {"path": "n", "geo_metadata": geo}},
                    {"name": "printed", "file": {"path": "my file\u00e4.json"}},
                ],
                "errors": ["a warning"],
                "parse_results": [{"filename": "in.txt"}],
            },
            "outputs": [
                {"name": "count", "file_id": 1},
                {"name": "parts", "file_ids": [2, 3]},
                {"name": "named", "file_id": 4},
                {"name": "printed", "file_id": 5},
            ],
            "folder_removed": True,
        }
    ]
    assert not agent.work_dir.exists()
    assert web.failures == []
    assert "'undeclared'" in ended.out


def test_a_job_without_outputs_reports_an_empty_manifest(web: FakeWeb, agent: Agent) -> None:
    assert agent.run("post").code == 0
    assert web.results[0]["results_manifest"]["output_data"] == []
    assert web.results[0]["outputs"] == []


def test_an_empty_file_is_a_file(web: FakeWeb, agent: Agent) -> None:
    agent.declares("out", pattern="empty")
    (agent.outputs / "empty").touch()
    assert agent.run("post").code == 0
    assert web.uploads[("out", "empty")].size == 0


def test_a_missing_required_output_is_named(web: FakeWeb, agent: Agent) -> None:
    agent.declares("count", pattern="count.txt")
    failed(agent, 20, "required output 'count' is missing: no file matches 'count.txt'")


def test_several_files_for_one_output(web: FakeWeb, agent: Agent) -> None:
    agent.declares("count", pattern="*.txt")
    (agent.outputs / "a.txt").touch()
    (agent.outputs / "b.txt").touch()
    failed(agent, 22, "output 'count' is one file, but there are 2: 'a.txt', 'b.txt'")


def test_a_manifest_that_is_not_json(web: FakeWeb, agent: Agent) -> None:
    (agent.outputs / "results_manifest.json").write_text("{'single': 'quotes'}")
    failed(agent, 21, "results_manifest.json is not JSON")


def test_a_manifest_of_50_mb(web: FakeWeb, agent: Agent) -> None:
    with (agent.outputs / "results_manifest.json").open("wb") as file:
        file.truncate(50 * MIB)
    failed(agent, 21, "results_manifest.json is larger than 10 MiB")


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../secret", "link", "linked/hosts", "pipe"])
def test_a_manifest_that_names_something_else_stores_nothing(
    web: FakeWeb, agent: Agent, path: str
) -> None:
    agent.declares("good", pattern="good")
    agent.declares("out")
    (agent.outputs / "good").touch()
    (agent.outputs / "link").symlink_to("/etc/hosts")
    (agent.outputs / "linked").symlink_to("/etc")
    os.mkfifo(agent.outputs / "pipe")
    manifest(agent, {"name": "out", "file": {"path": path}})
    failed(agent, 21, f"results_manifest.json names {path!r} for output 'out', which ")
    assert web.uploads == {}


def test_a_link_out_of_the_folder(web: FakeWeb, agent: Agent) -> None:
    agent.declares("out", pattern="*.txt")
    (agent.outputs / "x.txt").symlink_to("/etc/passwd")
    failed(agent, 21, "output 'out': 'x.txt' is a link that leaves the outputs folder")


def test_a_device(web: FakeWeb, agent: Agent) -> None:
    agent.declares("out", pattern="*.txt")
    os.mkfifo(agent.outputs / "x.txt")
    failed(agent, 21, "output 'out': 'x.txt' is a device, pipe or socket")


def test_the_outputs_folder_replaced_by_a_link(web: FakeWeb, agent: Agent) -> None:
    agent.declares("out", pattern="hosts")
    agent.outputs.rmdir()
    agent.outputs.symlink_to("/etc")
    failed(agent, 21, "the job removed its outputs folder, or replaced it")


@pytest.mark.parametrize("name", [b"two\nlines.txt", b"\xff.txt", b"esc\x1b[31m.txt"])
def test_a_name_that_cannot_be_stored(web: FakeWeb, agent: Agent, name: bytes) -> None:
    agent.declares("out", pattern="*.txt")
    (agent.outputs / os.fsdecode(name)).touch()
    failed(agent, 21, "output 'out'")


def test_a_name_of_5000_characters(web: FakeWeb, agent: Agent) -> None:
    agent.declares("out")
    agent.job_stdout.write_text("ARTIFACT:out:" + "x" * 5000)
    failed(agent, 21, "for output 'out', which has a name longer than 255 bytes")


def test_more_output_than_allowed_is_refused_before_it_is_stored(
    web: FakeWeb, agent: Agent
) -> None:
    web.orders["max_output_bytes"] = 2 * MIB
    agent.declares("out", type="files", pattern="*")
    for name in "ab":
        (agent.outputs / name).write_bytes(bytes(MIB + 1))
    failed(agent, 21, "the outputs have 2.0 MiB in all, 2.0 are allowed")
    assert web.uploads == {}


def test_a_file_that_scale_does_not_take(web: FakeWeb, agent: Agent) -> None:
    agent.declares("out", pattern="a")
    (agent.outputs / "a").touch()
    web.answers["outputs"] = [413]
    failed(agent, 21, "storing output 'out': Scale answered 413")


def test_a_refusal_is_heard_while_a_large_file_is_sent(web: FakeWeb, agent: Agent) -> None:
    def refuse(handler: Handler) -> None:
        # It does not read the rest, so that closing resets the connection.
        handler.wfile.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    web.routes[f"/agent/executions/{UUID}/outputs/"] = refuse
    agent.declares("out", pattern="a")
    with (agent.outputs / "a").open("wb") as file:
        file.truncate(20 * MIB)
    failed(agent, 21, "Scale answered 413 Too Large")


@pytest.mark.parametrize("content", [b"longer", b"", None], ids=["grew", "shrank", "went"])
def test_a_file_that_changes_while_it_is_stored(
    web: FakeWeb, agent: Agent, content: bytes | None
) -> None:
    agent.declares("a", pattern="a")
    agent.declares("b", pattern="b")
    for name in "ab":
        (agent.outputs / name).write_bytes(b"old")

    def store_and_change(handler: Handler) -> None:
        (agent.outputs / "b").unlink()
        if content is not None:
            (agent.outputs / "b").write_bytes(content)
        handler._outputs(web)

    web.routes[f"/agent/executions/{UUID}/outputs/"] = store_and_change
    failed(agent, 21, "output 'b': 'b' changed while it was stored")


def test_a_passing_failure_of_scale_is_tried_again(web: FakeWeb, agent: Agent) -> None:
    agent.declares("out", pattern="a")
    (agent.outputs / "a").write_text("x")
    web.answers = {"outputs": [502, 503, 0], "results": [500, 0]}
    ended = agent.run("post")
    assert ended.code == 0
    assert len(web.results) == 1
    assert "storing output 'out': Scale answered 502" in ended.out


@pytest.mark.parametrize("status", [401, 409, 503])
def test_scale_that_refuses_the_results(web: FakeWeb, agent: Agent, status: int) -> None:
    web.answers["results"] = [status]
    ended = agent.run("post")
    assert ended.code == 14
    assert str(status) in ended.err


def test_a_post_that_was_stopped_can_be_run_again(web: FakeWeb, agent: Agent) -> None:
    agent.declares("a", pattern="a")
    agent.declares("b", pattern="b")
    for name in "ab":
        (agent.outputs / name).write_text(name)
    uploads = f"/agent/executions/{UUID}/outputs/"
    web.routes[uploads] = lambda handler: (
        handler._outputs(web) if "output=a" in handler.path else web.asked.set()
    )
    with agent.started("post", SCALE_STEPS_API_TRIES="1000") as process:
        assert web.asked.wait(30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(3) == 143
        process.communicate()
    del web.routes[uploads]
    assert agent.run("post").code == 0
    assert web.uploads[("a", "a")] == stored(b"a", "application/octet-stream", times=2)
    assert [output["name"] for output in web.results[0]["outputs"]] == ["a", "b"]


def test_a_post_after_the_folder_went_away_says_so(web: FakeWeb, agent: Agent) -> None:
    agent.declares("out", required=False, pattern="a")
    assert agent.run("post").code == 0
    ended = agent.run("post")
    assert ended.code == 13
    assert f"the work folder {agent.work_dir} is gone" in ended.err


def measured(agent: Agent, phase: str) -> tuple[Ended, int]:
    """Run a phase and return how it ended and its greatest resident size in MiB.

    A small process starts it: what a child has is at least what its parent had when it forked.
    """
    script = (
        "import resource, subprocess, sys\n"
        "code = subprocess.call(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)\n"
        "sys.exit(code)"
    )
    program, agent.program = agent.program, Path("-c")
    try:
        ended = agent.run(script, sys.executable, str(program), phase)
    finally:
        agent.program = program
    return ended, int(ended.out.splitlines()[-1])


def test_memory_is_bounded_whatever_the_size(web: FakeWeb, agent: Agent) -> None:
    size = 200 * MIB
    agent.declares("big", pattern="big")
    with (agent.outputs / "big").open("wb") as file:
        file.truncate(size)
    with agent.job_stdout.open("wb") as file:  # one line of 200 MiB that looks like an artifact
        file.write(b"ARTIFACT:")
        file.truncate(size)
    ended, mib = measured(agent, "post")
    assert ended.code == 0
    assert web.uploads[("big", "big")].size == size
    assert mib < 60

    def route(handler: Handler) -> None:
        handler.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(200):
            handler.wfile.write(bytes(MIB))

    web.routes["/big"] = route
    place = agent.wants(f"{web.url}/big", sha256=web.uploads[("big", "big")].sha256)
    ended, mib = measured(agent, "pre")
    assert ended.code == 0
    assert place.stat().st_size == size
    assert mib < 60


def old_python() -> str | None:
    """Return a Python 3.8 of this machine: named by SCALE_TEST_OLD_PYTHON, or found."""
    named = os.environ.get("SCALE_TEST_OLD_PYTHON")
    found = sorted(Path.home().glob(".pyenv/versions/3.8.*/bin/python3"))
    candidates = [named] if named else ["python3.8", *map(str, found)]
    for candidate in candidates:
        try:
            ran = subprocess.run([candidate, "--version"], capture_output=True, text=True)
        except OSError:
            continue
        if ran.stdout.startswith("Python 3."):
            return candidate
    return None


def test_all_phases_run_on_an_old_python(web: FakeWeb, tmp_path: Path) -> None:
    python = old_python()
    if python is None:
        pytest.skip("no Python 3.8 on this machine (SCALE_TEST_OLD_PYTHON names one)")
    agent = Agent(web, tmp_path, python)
    web.raw("/a", b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
    agent.wants(f"{web.url}/a")
    hosts = tmp_path / "data" / "hosts"
    hosts.parent.mkdir()
    hosts.write_text("x")
    web.orders["file_roots"] = [str(hosts.parent)]
    agent.wants(f"file://{hosts}", "local", size=1)
    agent.declares("out", pattern="**/out.txt")
    assert agent.run("pre").code == 0
    (agent.outputs / "out.txt").write_text("out")
    manifest(agent)
    assert agent.run("post").code == 0
    assert web.uploads[("out", "out.txt")].size == 3
    agent.work_dir.mkdir()
    assert agent.run("cleanup", str(agent.work_dir)).code == 0
    assert not agent.work_dir.exists()
    agent.wants(web.hang("/hang"), "hanging")
    assert "it stalled" in agent.run("pre", SCALE_STEPS_STALL_S="0.2").err


def test_cleanup_removes_work_folders_and_tolerates_those_that_are_gone(agent: Agent) -> None:
    (agent.outputs / "a" / "b").mkdir(parents=True)
    gone = agent.work_dir.with_name(UUID.replace("0", "1"))
    ended = agent.run("cleanup", str(agent.work_dir), str(gone), SCALE_EXECUTION_TOKEN="")
    assert (ended.code, ended.err) == (0, "")
    assert f"{agent.work_dir}: removed\n{gone}: was gone already\n" in ended.out
    assert not agent.work_dir.exists()
    assert agent.work_dir.parent.exists()


def test_cleanup_refuses_everything_else_and_then_removes_nothing(
    agent: Agent, tmp_path: Path
) -> None:
    work = agent.work_dir.parent
    (work / "precious").mkdir()
    link = work / UUID.replace("0", "2")
    link.symlink_to(tmp_path)
    file = work / UUID.replace("0", "3")
    file.touch()
    for folder in (
        f"{work}/precious", str(work), f"{agent.work_dir}/outputs", f"{work}/../{UUID}",
        f"elsewhere/{UUID}", UUID, "/", "", str(link), str(file),
    ):  # fmt: skip
        ended = agent.run("cleanup", str(agent.work_dir), folder)
        assert (folder, ended.code) == (folder, 2)
    for base in ("", "/", "work"):
        assert agent.run("cleanup", str(agent.work_dir), SCALE_AGENT_WORK_DIR=base).code == 2
    assert agent.outputs.exists()
    assert link.is_symlink()


def test_a_folder_thousands_of_levels_deep_is_removed(agent: Agent) -> None:
    here = os.open(agent.outputs, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert agent.run("cleanup", str(agent.work_dir)).code == 0
    assert not agent.work_dir.exists()


@pytest.fixture
def folder_of_an_ordinary_user() -> Iterator[Path]:
    """A folder that this process owns without being root, who may remove everything anyway."""
    with tempfile.TemporaryDirectory() as folder:
        nobody = 65534
        if os.geteuid() == 0:
            os.chown(folder, nobody, nobody)
            os.seteuid(nobody)
        try:
            yield Path(folder)
        finally:
            os.seteuid(os.getuid())


def test_folders_that_may_not_be_written_to_are_removed(folder_of_an_ordinary_user: Path) -> None:
    top = folder_of_an_ordinary_user / "top"
    inner = top / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    (top / "link").symlink_to("/etc")
    for folder in (inner, inner.parent, top):
        folder.chmod(0o000 if folder == inner else 0o500)
    with pytest.raises(PermissionError):
        (top / "x").touch()
    assert remove_tree(top)
    assert not top.exists()


def test_what_cannot_be_removed_is_reported(folder_of_an_ordinary_user: Path) -> None:
    folder = folder_of_an_ordinary_user / "top"
    folder.mkdir()
    folder_of_an_ordinary_user.chmod(0o500)
    assert not remove_tree(folder)
    assert folder.exists()
    folder_of_an_ordinary_user.chmod(0o700)
