"""The settings of a production installation: Django's own checks, and what must stop the start."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCTION = {
    "SCALE_SECRET_KEY": secrets.token_urlsafe(50),
    "DATABASE_URL": "postgresql://scale:db-password@db.example.org/scale",
    "SCALE_BROKER_URL": "rediss://:broker-password@valkey.example.org/0",
    "SCALE_MESOS_MASTER": "zk://zk1.example.org:2181,zk2.example.org:2181/mesos",
    "SCALE_MESOS_PRINCIPAL": "scale",
    "SCALE_MESOS_SECRET": "mesos-password",
    "SCALE_API_URL": "https://scale.example.org",
    "SCALE_ALLOWED_HOSTS": "scale.example.org",
    "SCALE_LOG_FORMAT": "json",
}


def python(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={"PATH": os.environ["PATH"], **PRODUCTION, **changes},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )


def test_the_deployment_check_is_clean_for_production() -> None:
    checked = python("manage.py", "check", "--deploy", "--fail-level", "WARNING")
    assert checked.returncode == 0, checked.stderr
    assert checked.stderr == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCALE_SECRET_KEY", "short"),
        ("SCALE_SECRET_KEY", "a" * 60),
        ("SCALE_AGENT_FORBIDDEN_NETWORKS", "10.0.0.1/8"),
        ("SCALE_AGENT_FORBIDDEN_NETWORKS", "everywhere"),
        ("SCALE_AGENT_FILE_ROOTS", "data"),
        ("SCALE_MESOS_SECRET", ""),
        ("SCALE_API_URL", "https://scale:password@scale.example.org"),
    ],
)
def test_a_setting_that_would_open_a_hole_stops_the_start(name: str, value: str) -> None:
    started = python("-c", "import scale.settings", **{name: value})
    assert started.returncode == 1
    assert name in started.stderr
    for secret in ("SCALE_SECRET_KEY", "SCALE_MESOS_SECRET"):
        assert not PRODUCTION[secret] or PRODUCTION[secret] not in started.stderr


def test_a_bad_setting_is_refused_without_its_password() -> None:
    bad = {
        "DATABASE_URL": "mysql://scale:db-password@db.example.org/scale",
        "SCALE_BROKER_URL": "http://:broker-password@valkey.example.org",
    }
    started = python("-c", "import scale.settings", **bad)
    assert started.returncode == 1
    assert all(name in started.stderr for name in bad)
    assert "db-password" not in started.stderr
    assert "broker-password" not in started.stderr
