"""The words of the `scale` command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scale.cli import main as cli
from scale.cli.commands import manage
from scale.embedded import up

COMMANDS = {"up", "web", "scheduler", "worker", "localmesos", "migrate", "manage"}


def test_help_names_every_command_and_loads_none_of_them() -> None:
    script = (
        "import sys; from scale.cli.main import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "print([m for m in ('django', 'celery', 'uvicorn', 'asyncio', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    *text, loaded = done.stdout.splitlines()
    assert {line.split()[0] for line in text if line.startswith("  ") and line.strip()} >= COMMANDS
    assert loaded == "[]"


def test_up_hands_over_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    wishes: list[up.Wish] = []
    monkeypatch.setattr(up, "run", lambda wish: wishes.append(wish) or 7)
    words = ["up", "--port", "0", "--cpus", "1.5", "--mem", "100", "--disk", "200"]
    assert CliRunner().invoke(cli.app, words).exit_code == 7
    assert wishes == [up.Wish(host="127.0.0.1", port=0, cpus=1.5, mem_mib=100, disk_mib=200)]


@pytest.mark.parametrize("words", [["--port", "65536"], ["--cpus", "0"], ["--mem", "0"]])
def test_up_refuses_what_cannot_be(words: list[str]) -> None:
    result = CliRunner().invoke(cli.app, ["up", *words])
    assert result.exit_code == 2
    assert words[0] in result.output


@pytest.fixture
def django_heard(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    heard: list[list[str]] = []
    monkeypatch.setattr("django.core.management.execute_from_command_line", heard.append)
    return heard


def test_manage_passes_on_options_that_are_not_ours(django_heard: list[list[str]]) -> None:
    CliRunner().invoke(cli.app, ["manage", "shell", "--help", "-v", "2"])
    CliRunner().invoke(cli.app, ["migrate", "--plan"])
    assert django_heard == [
        ["scale manage", "shell", "--help", "-v", "2"],
        ["scale manage", "migrate", "--plan"],
    ]


def test_manage_works_on_the_embedded_default_when_no_database_is_named(
    django_heard: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = {"DATABASE_URL": "postgresql:///embedded", "SCALE_SECRET_KEY": "kept"}
    (tmp_path / "environment.json").write_text(json.dumps(kept))
    environ = {"SCALE_HOME": str(tmp_path), "SCALE_SECRET_KEY": "mine"}
    monkeypatch.setattr(manage.os, "environ", environ)
    manage.run(["check"])
    assert environ["DATABASE_URL"] == "postgresql:///embedded"
    assert environ["SCALE_SECRET_KEY"] == "mine"


def test_manage_leaves_a_named_database_alone(
    django_heard: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "environment.json").write_text('{"SCALE_SECRET_KEY": "kept"}')
    environ = {"SCALE_HOME": str(tmp_path), "DATABASE_URL": "postgresql:///mine"}
    monkeypatch.setattr(manage.os, "environ", environ)
    manage.run(["check"])
    assert "SCALE_SECRET_KEY" not in environ
