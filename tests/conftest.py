"""Settings for tests, and one PostgreSQL for those that want a database.

The server is ours (the one that `scale up` runs) unless DATABASE_URL names another; it starts with
the first test that needs it, so that unit tests start nothing. The environment stays as it was:
what tests start as processes shall not see these settings by accident.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import django
import pytest

# Sockets have short paths only (107 bytes), so this is not below pytest's own folders.
HOME = Path(tempfile.mkdtemp(prefix="scale-test-"))
GIVEN_DATABASE = os.environ.get("DATABASE_URL", "")

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scale.settings")
with patch.dict(
    os.environ,
    {
        "DATABASE_URL": GIVEN_DATABASE or f"postgresql:///scale?host={HOME}&user=scale",
        "SCALE_SECRET_KEY": "only for tests",
        "SCALE_STORAGE_DIR": str(HOME / "files"),
        "SCALE_API_URL": "http://testserver",
        "SCALE_ALLOWED_HOSTS": "testserver,localhost,127.0.0.1",
    },
):
    django.setup()


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> Iterator[None]:
    """Start the server; pytest-django asks for this before it makes the database."""
    from django.conf import settings

    # Several runs may share a server that was given to us.
    settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = f"test_scale_{os.getpid()}"
    if GIVEN_DATABASE:
        yield
        return
    from scale.embedded.postgres import PostgresServer

    server = PostgresServer(HOME, fsync=False)
    server.start()
    yield
    server.stop()
