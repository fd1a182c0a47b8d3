"""Nothing is served to who has not logged in, and passwords cannot be guessed quickly."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from scale.api import uploads

# What is open, and why: probes, the description of the interface, code for agents, the login.
OPEN = {
    "/healthz",
    "/readyz",
    "/schema/",
    "/docs/",
    "/agent/steps.pyz",
    "/admin/login/",
    "/admin/logout/",
    "/admin/jsi18n/",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SAMPLES = {"uuid": "00000000-0000-4000-8000-000000000000", "int": "1", "str": "1", "path": "1"}
PASSWORD = "correct horse battery"


def addresses(patterns: list[URLPattern | URLResolver], prefix: str = "/") -> Iterator[str]:
    """Yield a path for each pattern, with a sample for each parameter."""
    for pattern in patterns:
        path = prefix + sample(str(pattern.pattern))
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern.url_patterns, path)
        else:
            yield path


def sample(pattern: str) -> str:
    plain = re.sub(r"<(?:(\w+):)?\w+>(?!\[|\.|\w)", lambda m: SAMPLES[m[1] or "str"], pattern)
    first = re.sub(r"\(\?P<\w+>(?:\[\^/\]\+|\.\*|(\w+)[^)]*)\)", lambda m: m[1] or "1", plain)
    return first.strip("^$")


PATHS = sorted(set(addresses(get_resolver().url_patterns)))


def test_the_samples_lead_to_all_kinds_of_addresses() -> None:
    for path in (
        "/job-executions/1/logs/stdout/",
        "/v3/files/1/content/",
        f"/agent/executions/{SAMPLES['uuid']}/outputs/",
        "/admin/job/jobexecution/1/change/",
    ):
        assert path in PATHS
    assert not [path for path in PATHS if re.search(r"[<>()?^$\\]", path)]


@pytest.mark.django_db
def test_no_address_says_anything_to_strangers(client: Client) -> None:
    answered = []
    for path in PATHS:
        for method in METHODS if path not in OPEN else ():
            answer = client.generic(method, path, b"{}", content_type="application/json")
            if not is_refused(path, method, answer):
                answered.append((method, path, answer.status_code))
    assert answered == []


def is_refused(path: str, method: str, answer: Any) -> bool:
    if path == "/":  # leads to the admin, and has nothing else
        return answer.status_code in (302, 405) and not answer.content
    if path.startswith("/admin/"):
        login = answer.status_code == 302 and answer["Location"].startswith("/admin/login/?next=")
        return login or answer.status_code in (401, 403, 404, 405)
    return bool(answer.status_code == 401)


@pytest.mark.django_db
def test_what_is_open_is_still_there(client: Client) -> None:
    found = {path: client.get(path).status_code for path in OPEN - {"/readyz"}}
    assert set(found.values()) <= {200, 302, 405}, found


@pytest.fixture
def guess(db: None, client: Client) -> Callable[..., int]:
    User.objects.create_superuser("boss", password=PASSWORD)
    User.objects.create_superuser("other", password=PASSWORD)

    def guess(password: str, username: str = "boss", address: str = "127.0.0.1") -> int:
        answer = client.post(
            "/admin/login/",
            {"username": username, "password": password},
            headers={"User-Agent": address},
            REMOTE_ADDR=address,
        )
        return int(answer.status_code)

    return guess


def test_after_five_wrong_passwords_none_is_looked_at_for_a_minute(
    guess: Callable[..., int],
) -> None:
    # Each from another address and browser: neither is what counts.
    assert [guess(f"wrong {n}", address=f"10.0.0.{n}") for n in range(5)] == [200] * 4 + [429]
    assert guess(PASSWORD) == 429, "a lock that opens for the right password tells which it is"
    assert guess(PASSWORD, "other") == 302, "others are not locked out with them"
    later = timezone.now() - timedelta(seconds=61)
    AccessAttempt.objects.update(attempt_time=later)
    assert guess(PASSWORD) == 302


def test_guessing_on_does_not_keep_the_owner_out_for_longer(guess: Callable[..., int]) -> None:
    for n in range(5):
        guess(f"wrong {n}")
    half_over = timezone.now() - timedelta(seconds=50)
    AccessAttempt.objects.update(attempt_time=half_over)
    assert guess("wrong again") == 429
    assert set(AccessAttempt.objects.values_list("attempt_time", flat=True)) == {half_over}


def test_rows_of_old_guesses_do_not_pile_up(guess: Callable[..., int]) -> None:
    for n in range(3):
        guess("wrong", f"nobody-{n}")
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=2))
    guess("wrong")
    assert list(AccessAttempt.objects.values_list("username", flat=True)) == ["boss"]


def test_what_was_guessed_is_not_kept(
    guess: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(6):
        guess("hunter2-the-secret")
    kept = str(list(AccessAttempt.objects.values()))
    assert "hunter2" not in kept + caplog.text


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/admin/login/", "/admin/logout/", "/jobs/", "/files/"])
def test_a_stranger_cannot_have_files_written(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a file was begun")

    monkeypatch.setattr(uploads, "ReceivedFile", refuse)
    client = Client(enforce_csrf_checks=True)
    client.cookies["csrftoken"] = "a" * 32
    file = BytesIO(b"x" * 200_000)
    file.name = "large.bin"
    answer = client.post(path, {"username": "a", "password": "b", "file": file})
    assert answer.status_code in (400, 401, 403, 413)


def test_a_token_is_stored_as_a_digest_and_a_password_as_a_slow_hash(
    make_user: Callable[..., Any],
) -> None:
    from knox.models import AuthToken

    user = make_user()
    user.set_password(PASSWORD)
    row, token = AuthToken.objects.create(user)
    assert len(token) == 64, "32 random bytes: nobody guesses that"
    assert token not in str(vars(row))
    assert user.password.startswith("pbkdf2_sha256$")
