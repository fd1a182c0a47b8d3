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
from django.conf import settings

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

# Else each test client lists all static files anew; found on demand they are the same ones.
settings.WHITENOISE_AUTOREFRESH = True


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test with real transactions what the migrations made, and in the same way.

    Django empties all tables after such a test. It then makes content types anew unless the test
    has asked for a restored database, and the next one that does asks for the old ones: a clash.
    """
    for item in items:
        marker = item.get_closest_marker("django_db")
        options = marker.kwargs if marker else {}
        fixtures = set(getattr(item, "fixturenames", ()))
        if options.get("transaction") or fixtures & {"transactional_db", "live_server"}:
            restored = {**options, "transaction": True, "serialized_rollback": True}
            item.add_marker(pytest.mark.django_db(**restored), append=False)


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> Iterator[None]:
    """Start the server; pytest-django asks for this before it makes the database."""
    # A wait for a lock is not broken by pytest's own timeout: it is inside a C library.
    settings.DATABASES["default"]["OPTIONS"]["options"] = "-c lock_timeout=30s"
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
