"""Outputs whose bytes are still on their way when something else happens to their execution."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from log_world import THREE_PHASES, FakeAgent, Life, make_node, running_agent

from scale.core.lifecycle import Event
from scale.job import tokens
from scale.job.models import File

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("folder")]


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Life]:
    """An execution whose post phase has begun."""
    with running_agent(tmp_path / "agent") as agent:
        yield in_post(agent)


def in_post(agent: FakeAgent) -> Life:
    return Life(make_node(agent), agent, THREE_PHASES).start().hold().start().hold().start()


class Body(io.BytesIO):
    """Bytes before whose end something happens."""

    def __init__(self, content: bytes, meanwhile: Callable[[], Any]) -> None:
        super().__init__(content)
        self._meanwhile: Callable[[], Any] | None = meanwhile

    def read(self, size: int | None = -1) -> bytes:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile:
            meanwhile()
        return super().read(size)


def put(life: Life, content: bytes, meanwhile: Callable[[], Any], name: str = "a.part") -> int:
    environ: dict[str, Any] = {
        "wsgi.input": Body(content, meanwhile),
        "CONTENT_LENGTH": str(len(content)),
        "CONTENT_TYPE": "text/plain",
        "HTTP_AUTHORIZATION": f"Bearer {tokens.issue(life.row.uuid, life.row.task_id)}",
    }
    path = f"/agent/executions/{life.row.uuid}/outputs/?output=parts&name={name}"
    answer = Client().generic("PUT", path, **environ)
    return int(answer.status_code)


def nothing_is_stored(folder: Path) -> bool:
    return not File.objects.exists() and not [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "end",
    [
        lambda life: life.finish(),
        lambda life: life.move(Event.FAIL, error="node-lost"),
        lambda life: life.move(Event.BOUNCE_TO_HOLD) and life.start(),
    ],
    ids=["ended well", "was lost", "was launched again"],
)
def test_an_output_that_outlives_its_task_is_not_stored(
    post: Life, folder: Path, end: Callable[[Life], Any]
) -> None:
    assert put(post, b"late", lambda: end(post)) == 409
    assert nothing_is_stored(folder)


def test_outputs_that_come_at_the_same_time_are_bounded_together(
    post: Life, folder: Path, settings: Any
) -> None:
    settings.SCALE_MAX_OUTPUT_MIB = 1
    half = b"x" * (600 * 1024)
    inner = []
    outer = put(post, half, lambda: inner.append(put(post, half, lambda: None, "b.part")))
    assert (inner, outer) == ([201], 413)
    assert [file.name for file in File.objects.all()] == ["b.part"]
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 1


def test_files_that_would_take_each_others_place_fail_the_execution(post: Life) -> None:
    def nothing() -> None:
        """Nothing happens meanwhile."""

    for name in ("a.part", "a%E2%80%8B.part", "b%5Ca.part", "%20a.part"):
        assert put(post, b"x", nothing, name) == 201
    [file] = File.objects.all()
    answer = Client().post(
        f"/agent/executions/{post.row.uuid}/results/",
        {
            "results_manifest": {},
            "outputs": [{"name": "parts", "file_ids": [file.pk] * 4}],
            "folder_removed": True,
        },
        content_type="application/json",
        headers={"Authorization": f"Bearer {tokens.issue(post.row.uuid, post.row.task_id)}"},
    )
    assert answer.status_code == 400
    assert "cannot be told apart" in answer.json()["detail"]
