"""Where stored files go: on disk before anything says that they are there."""

import os
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage


class DurableStorage(FileSystemStorage):
    """Django's file storage, with files that survive a crash of the machine once they are saved.

    A row is committed after its file: without this it could outlive the file's bytes. About a
    millisecond for each file.
    """

    def _save(self, name: str, content: Any) -> str:
        folder, root = Path(self.path(name)).parent, Path(self.location)
        known = folder.is_dir()
        stored: str = super()._save(name, content)  # type: ignore[misc] # the stubs lack it
        _sync(Path(self.path(stored)))
        _sync(folder)
        while not known and folder != root:
            folder = folder.parent
            _sync(folder)
        return stored


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
