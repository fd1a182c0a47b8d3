"""Behind https nothing is served to who comes without: what it would show travels in the open."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from knox.models import AuthToken
from log_world import FakeAgent, Life, make_node, running_agent
from served import served

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    with running_agent(tmp_path / "agent") as agent:
        yield agent


def test_who_comes_without_https_is_sent_there_whatever_is_asked_for(
    tmp_path: Path, agent: FakeAgent, make_user: Callable[..., Any]
) -> None:
    life = Life(make_node(agent), agent).start(stdout=b"secret")
    token = AuthToken.objects.create(make_user(role="viewer"))[1]
    logs = f"/job-executions/{life.pk}/logs"
    paths = ["/jobs/", "/agent/steps.pyz", f"{logs}/", f"{logs}/stdout/", f"{logs}/stream/"]
    production = {
        "SCALE_API_URL": "https://scale.example.org",
        "SCALE_ALLOWED_HOSTS": "scale.example.org",
        "SCALE_SECRET_KEY": secrets.token_urlsafe(50),
    }

    with served(tmp_path, **production) as url:

        def ask(path: str, **more: str) -> tuple[int, str | None, bytes]:
            """Return the status, where to go instead, and how the answer begins."""
            with closing(HTTPConnection(urlsplit(url).netloc, timeout=20)) as connection:
                given = {"Host": "scale.example.org", "Authorization": f"Token {token}"}
                connection.request("GET", path, headers=given | more)
                with closing(connection.getresponse()) as answer:
                    return answer.status, answer.headers["Location"], answer.read1(100)

        for path in [*paths, *(f"/v3{path}" for path in paths[2:])]:
            assert ask(path) == (301, f"https://scale.example.org{path}", b"")
            assert ask(path, **{"X-Forwarded-Proto": "https"})[0] == 200, path
