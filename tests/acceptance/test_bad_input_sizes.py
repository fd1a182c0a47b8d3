"""Inputs too large for an agent: whose fault it is decides whether its node is set aside."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scale.steps import fetch
from scale.steps.api import Api
from scale.steps.errors import FilesystemFailure, PullFailed, StepError
from scale.steps.limits import Limits
from scale.steps.orders import Input, Orders

MIB = 1024 * 1024
UUID = "00000000-0000-4000-8000-000000000000"


class Promises(http.server.BaseHTTPRequestHandler):
    """Promises as many bytes as the path says, and sends the first one."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", self.path[1:])
        self.end_headers()
        self.wfile.write(b"x")

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Promises)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def bring(uri: str, work_dir: Path) -> None:
    item = Input("text", ("inputs", "text", "a"), uri, False, None, None)
    orders = Orders(work_dir, None, 1, (), (), (item,), ())
    limits = Limits(backoff_s=0.01)
    fetch.fetch(
        item, fetch.Source(Api("http://127.0.0.1:1", "token", UUID, limits), orders, limits)
    )


@pytest.mark.parametrize(
    ("free_mib", "ours_mib", "promised_mib", "error"),
    [
        (100, 0, 2**40, PullFailed),  # it would fit nowhere
        (60, 0, 70, PullFailed),
        (11, 0, 20, PullFailed),
        (9, 0, 20, FilesystemFailure),  # the disk was nearly full before
        (0, 0, 1, FilesystemFailure),
        (9, 2, 20, PullFailed),  # but not if it was other inputs of ours that filled it
    ],
)
def test_a_disk_with_room_to_spare_is_not_to_blame_for_what_does_not_fit(
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free_mib: int,
    ours_mib: int,
    promised_mib: int,
    error: type[StepError],
) -> None:
    work_dir = tmp_path / UUID
    (work_dir / "inputs").mkdir(parents=True)
    (work_dir / "inputs" / "other").write_bytes(bytes(ours_mib * MIB))
    disk: Any = SimpleNamespace(total=100 * MIB, free=free_mib * MIB)
    monkeypatch.setattr("shutil.disk_usage", lambda _: disk)
    with pytest.raises(error, match="does not fit: it has"):
        bring(f"{server}/{promised_mib * MIB}", work_dir)
    assert [path.name for path in work_dir.rglob("*") if path.is_file()] == ["other"]


@pytest.mark.parametrize("promised", ["-1", "many", "0x1", ""])
def test_a_body_whose_end_can_only_be_guessed_is_not_taken(
    server: str, tmp_path: Path, promised: str
) -> None:
    work_dir = tmp_path / UUID
    work_dir.mkdir()
    with pytest.raises(PullFailed, match="Content-Length"):
        bring(f"{server}/{promised}", work_dir)
    assert list(work_dir.rglob("*")) == []
