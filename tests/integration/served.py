"""A real web process on the test database, and one thing of each kind to ask it for."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from django.db import connection

_PROGRAM = """
import socket
from scale.cli.commands.web import run
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
run(host="127.0.0.1", port=0, access_log=False, descriptor=listener.detach())
"""


@contextmanager
def served(folder: Path, **settings: str) -> Iterator[str]:
    """Run `scale web` on the test database; yield its URL. What it logs is in `folder`/log."""
    facts = connection.settings_dict
    query = urlencode({"host": facts["HOST"], "user": facts["USER"]})
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "DATABASE_URL": f"postgresql:///{facts['NAME']}?{query}",
        "SCALE_SECRET_KEY": "only for tests",
        "SCALE_STORAGE_DIR": str(folder / "stored"),
        **settings,
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, stderr=log, env=environment
        )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.communicate(timeout=10)


def narrowed(document: dict[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    """Return the document with ids that are there, or not: others would all be 404.

    `ids` maps the first word of a path to the number of a thing that exists.
    """
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if (parameter["in"], parameter["name"]) == ("path", "id"):
                    key = ids[path.split("/")[1]]
                    parameter["schema"]["enum"] = [key, 2**53]
                    parameter["examples"] = {"one": {"value": key}}
    bodies = document["components"]["schemas"]
    for name in ("JobBody", "NewJobBody"):
        bodies[name]["properties"]["job_type_id"]["enum"] = [ids["job-types"]]
    return document
