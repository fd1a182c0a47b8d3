"""Section 6.4: what is fetched before a task starts, and the time until it has started."""

import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract_cluster import Cluster
from contract_framework import Framework, is_update


class Served:
    """Files over HTTP at `url`; whoever asks for `/held` waits until `release`."""

    def __init__(self, folder: Path, address: str) -> None:
        self.asked, self._released = threading.Event(), threading.Event()
        outer = self

        class Quiet(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=str(folder))

            def do_GET(self) -> None:
                if self.path == "/held":
                    outer.asked.set()
                    outer._released.wait(30)
                super().do_GET()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((address, 0), Quiet)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://{address}:{self._server.server_port}"

    def release(self) -> None:
        self._released.set()

    def close(self) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def served(cluster: Cluster, tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "plain.txt").write_text("plain\n")
    (tmp_path / "held").write_text("")
    (tmp_path / "script").write_text("#!/bin/sh\necho it ran\n")
    with tarfile.open(tmp_path / "good.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("inside/file")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"inner"))
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../evil-tar"), io.BytesIO(b""))
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as zipped:
        zipped.writestr("../evil-zip", "out")
    made = Served(tmp_path, cluster.own_address())
    yield made
    made.close()


def test_uris_are_fetched_extracted_and_made_executable(
    framework: Framework, served: Served
) -> None:
    uris = [
        {"value": f"{served.url}/script", "executable": True},
        {"value": f"{served.url}/good.tar.gz"},
        {"value": f"{served.url}/plain.txt", "output_file": "under/name.txt"},
        {"value": "file:///etc/passwd"},
    ]
    task = framework.launch(
        "./script; cat inside/file under/name.txt; cmp passwd /etc/passwd", command={"uris": uris}
    )
    assert framework.run_until(task)["state"] == "TASK_FINISHED"
    assert framework.output(task) == "it ran\ninnerplain\n"


def test_an_archive_that_is_not_to_be_extracted_is_left_as_it_is(
    framework: Framework, served: Served
) -> None:
    uris = [{"value": f"{served.url}/good.tar.gz", "extract": False}]
    task = framework.launch("ls", command={"uris": uris})
    assert framework.run_until(task)["state"] == "TASK_FINISHED"
    assert framework.output(task).split() == ["good.tar.gz", "stderr", "stdout"]


def test_a_uri_that_cannot_be_fetched_fails_the_launch(
    framework: Framework, served: Served
) -> None:
    check_that_the_launch_fails(framework, f"{served.url}/missing")


@pytest.mark.parametrize("uri", ["http://[bad/x", "http://127.0.0.1:99999/x"])
def test_a_uri_that_is_none_fails_the_launch(framework: Framework, uri: str) -> None:
    check_that_the_launch_fails(framework, uri)


@pytest.mark.local_mesos("guarded")
@pytest.mark.parametrize("name", ["evil.zip", "evil.tar"])
def test_an_archive_that_leaves_the_sandbox_fails_the_launch(
    framework: Framework, served: Served, name: str
) -> None:
    check_that_the_launch_fails(framework, f"{served.url}/{name}")


def check_that_the_launch_fails(framework: Framework, uri: str) -> None:
    task = framework.launch("true", command={"uris": [{"value": uri}]})
    status = framework.status(task)
    framework.acknowledge(status)
    assert (status["state"], status["source"]) == ("TASK_FAILED", "SOURCE_AGENT")
    assert status["reason"] == "REASON_CONTAINER_LAUNCH_FAILED"
    assert status["message"].startswith("Failed to launch container: Failed to fetch all URIs")


@pytest.mark.local_mesos("guarded")
def test_an_output_file_cannot_leave_the_sandbox(framework: Framework, served: Served) -> None:
    uri = {"value": f"{served.url}/plain.txt", "output_file": "../../up.txt"}
    task = framework.launch("true", command={"uris": [uri]})
    assert framework.run_until(task)["state"] in ("TASK_FAILED", "TASK_ERROR")


def test_a_task_that_is_being_prepared_is_staging(framework: Framework, served: Served) -> None:
    task = framework.launch("true", command={"uris": [{"value": f"{served.url}/held"}]})
    assert served.asked.wait(10)
    framework.call("RECONCILE", reconcile={"tasks": [{"task_id": task["task_id"]}]})
    status = framework.status(task)
    assert (status["state"], status["reason"]) == ("TASK_STAGING", "REASON_RECONCILIATION")
    served.release()
    assert framework.run_until(task)["state"] == "TASK_FINISHED"


def test_a_kill_before_the_start_says_so_and_nothing_is_started(
    framework: Framework, served: Served
) -> None:
    task = framework.launch("echo ran", command={"uris": [{"value": f"{served.url}/held"}]})
    assert served.asked.wait(10)
    framework.call("KILL", kill={"task_id": task["task_id"]})
    status = framework.run_until(task)
    served.release()
    assert (status["state"], status["reason"]) == (
        "TASK_KILLED",
        "REASON_TASK_KILLED_DURING_LAUNCH",
    )
    framework.none(is_update, 0.2)
