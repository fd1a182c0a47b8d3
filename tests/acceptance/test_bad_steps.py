"""Inputs and patterns that would never end: an agent's disk and processor stay usable."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from scale.steps import fetch
from scale.steps.api import Api
from scale.steps.errors import PullFailed
from scale.steps.limits import Limits
from scale.steps.orders import parse_orders
from scale.steps.outputs import matches

MIB = 1024 * 1024
UUID = "00000000-0000-4000-8000-000000000000"


class Endless(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(MIB))
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def endless() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endless_input_leaves_room_on_the_disk(
    endless: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_dir = tmp_path / "agent" / UUID
    work_dir.mkdir(parents=True)
    largest = 0

    def disk_of_100_mib(_: str) -> object:
        nonlocal largest
        used = sum(file.stat().st_size for file in work_dir.rglob("*") if file.is_file())
        largest = max(largest, used)
        return SimpleNamespace(total=100 * MIB, used=used, free=100 * MIB - used)

    monkeypatch.setattr(fetch.shutil, "disk_usage", disk_of_100_mib)
    item = {"name": "text", "path": "inputs/text/a", "uri": endless, "stored": False}
    document = {
        "execution": UUID,
        "work_dir": str(work_dir),
        "job_task_id": None,
        "max_output_bytes": 1,
        "file_roots": [],
        "forbidden_networks": [],
        "inputs": [{**item, "size": None, "sha256": None}],
        "outputs": [],
    }
    orders = parse_orders(json.dumps(document).encode(), UUID)
    limits = Limits(progress_s=0.01)
    source = fetch.Source(Api("http://127.0.0.1:1", "token", UUID, limits), orders, limits)
    with pytest.raises(PullFailed, match="nearly full"):
        fetch.fetch(orders.inputs[0], source)
    assert 0 < largest <= 100 * MIB + fetch.LOOK_BYTES
    assert not list(work_dir.rglob("*")), "what came is gone again"


def test_no_pattern_takes_for_ever() -> None:
    began = time.process_time()
    assert not matches(("a",) * 200, ("**", "a") * 60 + ("b",))
    assert matches(("a",) * 200, ("**", "a") * 60)
    assert time.process_time() - began < 1
