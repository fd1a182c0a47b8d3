"""Packs the program into the one file that Mesos' fetcher brings to agents. Runs on the server."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

#: The same sources give the same bytes: 1980 is the zip format's beginning.
_DATE = (1980, 1, 1, 0, 0, 0)
_MAIN = "from steps.program import run\n\nrun()\n"
_NOT_ON_AGENTS = frozenset({"archive.py"})


def build_zipapp() -> bytes:
    """Return `steps.pyz`: a few dozen kilobytes, built in milliseconds; cache it if you like."""
    files = {"__main__.py": _MAIN.encode()}
    for source in sorted(Path(__file__).parent.glob("*.py")):
        if source.name not in _NOT_ON_AGENTS:
            files[f"steps/{source.name}"] = source.read_bytes()
    packed = io.BytesIO()
    packed.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name, _DATE)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, content)
    return packed.getvalue()
