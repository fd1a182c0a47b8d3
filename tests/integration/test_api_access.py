"""Who may do what, and what any endpoint does with a request that is no good."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test import Client, override_settings
from knox.models import AuthToken
from rest_framework.test import APIClient

from scale.api import errors
from scale.core.errors import GatewayError, LeadershipLost
from scale.job.models import Job, JobType

READ = [
    "/job-executions/",
    "/job-executions/1/",
    "/job-executions/1/history/",
    "/jobs/",
    "/jobs/1/",
    "/jobs/1/executions/",
    "/jobs/1/history/",
    "/jobs/executions/",
    "/jobs/updates/",
    "/job-types/",
    "/job-types/1/",
    "/job-types/1/revisions/",
    "/nodes/",
    "/nodes/1/",
    "/nodes/status/",
    "/job-types/status/",
    "/job-types/running/",
    "/job-types/system-failures/",
    "/bulk-actions/",
    "/bulk-actions/1/",
    "/errors/",
    "/errors/1/",
    "/queue/status/",
    "/scheduler/",
    "/files/",
    "/files/1/",
    "/files/1/content/",
    "/version/",
    "/scheduler/queued-resources/",
    "/load/",
    "/metrics/",
    "/metrics/job-types/",
    "/metrics/job-types/plot-data/",
    "/timeline/job-types/",
]
WRITE = [
    ("post", "/jobs/"),
    ("patch", "/jobs/1/"),
    ("post", "/jobs/bulk/"),
    ("post", "/jobs/cancel/"),
    ("post", "/jobs/requeue/"),
    ("post", "/queue/new-job/"),
    ("post", "/queue/requeue-jobs/"),
    ("post", "/job-types/"),
    ("post", "/job-types/validation/"),
    ("post", "/queue/requeue-job/"),
    ("patch", "/job-types/1/"),
    ("patch", "/nodes/1/"),
    ("put", "/nodes/1/"),
    ("patch", "/errors/1/"),
    ("post", "/errors/"),
    ("patch", "/scheduler/"),
    ("post", "/files/"),
]
PREFIXES = ["", "/v3"]


def is_problem(answer: Any, status: int, code: str) -> bool:
    assert answer["Content-Type"] == "application/json"
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    return bool(answer.json()["detail"])


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("method", "path"), [*(("get", path) for path in READ), *WRITE])
def test_nobody_gets_in_without_logging_in(method: str, path: str, prefix: str, db: None) -> None:
    answer = getattr(APIClient(), method)(prefix + path)
    assert is_problem(answer, 401, "not_authenticated")
    assert answer["WWW-Authenticate"] == "Token"


def test_a_token_lets_in(
    make_user: Callable[..., Any], django_assert_num_queries: Callable[..., Any]
) -> None:
    user = make_user()
    _, token = AuthToken.objects.create(user)
    client = APIClient()
    # One query is for the token and its user.
    with django_assert_num_queries(1):
        assert (
            client.get("/version/", headers={"Authorization": f"Token {token}"}).status_code == 200
        )
    user.is_active = False
    user.save()
    assert client.get("/version/", headers={"Authorization": f"Token {token}"}).status_code == 401


@pytest.mark.parametrize(
    "header",
    ["Token", "Token nonsense", "Token a b", "Token \xff\xfe", "Token " + "a" * 64, "token %00"],
)
def test_a_bad_token_does_not(header: str, db: None) -> None:
    answer = APIClient().get("/version/", HTTP_AUTHORIZATION=header)
    assert is_problem(answer, 401, "authentication_failed")
    assert answer["WWW-Authenticate"] == "Token"


def test_a_session_must_prove_that_the_request_is_its_own(
    make_user: Callable[..., Any], make_job: Callable[..., Job]
) -> None:
    url = f"/jobs/{make_job().pk}/"
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user(role="operator"))
    assert client.get(url).status_code == 200
    body = {"data": {"status": "CANCELED"}, "content_type": "application/json"}
    assert is_problem(client.patch(url, **body), 403, "permission_denied")
    assert client.get(url).json()["status"] == "QUEUED"
    client.cookies["csrftoken"] = "x" * 32
    assert client.patch(url, **body, headers={"X-CSRFToken": "x" * 32}).status_code == 200


@pytest.mark.parametrize(("method", "path"), [each for each in WRITE if each[1] != "/files/"])
@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "parse_error"),
        (b"[]", "application/json", 400, "invalid"),
        (b"null", "application/json", 400, "invalid"),
        (b'"text"', "application/json", 400, "invalid"),
        (b'{"a": 1, "a": 2}', "application/json", 400, "invalid"),
        (b'{"a": "\\u0000"}', "application/json", 400, "invalid"),
        (b'{"a": "\xff"}', "application/json", 400, "parse_error"),
        (b'{"a": 99999999999999999999}', "application/json", 400, "parse_error"),
        (b"{}", "application/json; charset=latin-1", 415, "unsupported_media_type"),
        ("{}".encode("utf-16"), "application/json", 400, "parse_error"),
        (b"a=1", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"<a/>", "text/xml", 415, "unsupported_media_type"),
        (b"{}", "", 415, "unsupported_media_type"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    method: str,
    path: str,
    body: bytes,
    kind: str,
    status: int,
    code: str,
    api: APIClient,
) -> None:
    answer = api.generic(method.upper(), path, body, content_type=kind)
    assert is_problem(answer, status, code)


def test_a_compressed_body_is_refused(api: APIClient) -> None:
    answer = api.post("/errors/", {}, format="json", headers={"Content-Encoding": "gzip"})
    assert is_problem(answer, 415, "unsupported_media_type")


def test_a_body_that_is_too_large_is_refused(api: APIClient) -> None:
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=100):
        answer = api.post("/errors/", {"name": "x" * 100}, format="json")
    assert is_problem(answer, 413, "too_large")


@pytest.mark.parametrize(("method", "path"), [*(("get", path) for path in READ), *WRITE])
def test_a_parameter_that_nobody_knows_is_refused(method: str, path: str, api: APIClient) -> None:
    answer = getattr(api, method)(f"{path}?surprise=1")
    if answer.status_code != 404:  # the thing was looked for first
        assert is_problem(answer, 400, "invalid")
        assert answer.json()["field"] == "surprise"


@pytest.mark.parametrize(
    ("method", "path"),
    [("delete", "/jobs/1/"), ("put", "/jobs/1/"), ("post", "/version/"), ("options", "/jobs/")],
)
def test_a_method_that_is_not_there_is_refused(method: str, path: str, api: APIClient) -> None:
    answer = getattr(api, method)(path)
    assert is_problem(answer, 405, "method_not_allowed")
    assert "GET" in answer["Allow"]


def test_what_a_client_accepts_does_not_matter(api: APIClient) -> None:
    answer = api.get("/version/", headers={"Accept": "text/html"})
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")


@pytest.mark.parametrize("path", ["/nothing/", "/v4/jobs/", "/jobs/1/nothing/", "/%ff/", "/a%00b/"])
def test_an_address_that_leads_nowhere(path: str, api: APIClient) -> None:
    assert is_problem(api.get(path), 404, "not_found")


def test_a_host_that_is_not_ours(api: APIClient) -> None:
    assert is_problem(api.get("/version/", HTTP_HOST="evil.example"), 400, "bad_request")


@pytest.mark.parametrize("path", ["/jobs", "/v3/job-executions"])
def test_the_last_slash_is_required(path: str, api: APIClient) -> None:
    answer = api.get(path)
    assert (answer.status_code, answer["Location"]) == (301, f"{path}/")


def test_the_root_leads_to_the_admin(api: APIClient) -> None:
    answer = api.get("/")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_created_things_are_where_they_were_made(
    prefix: str, api: APIClient, make_job_type: Callable[..., JobType]
) -> None:
    answer = api.post(f"{prefix}/jobs/", {"job_type_id": make_job_type().pk}, format="json")
    assert answer["Location"] == f"http://testserver{prefix}/jobs/{answer.json()['id']}/"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (GatewayError("no"), 503, "cluster_unavailable"),
        (LeadershipLost("no"), 503, "leadership_lost"),
        (OperationalError("secret"), 503, "database_unavailable"),
    ],
)
def test_our_failures_are_503(error: Exception, status: int, code: str) -> None:
    answer = errors.handle(error, {})
    assert answer is not None
    assert (answer.status_code, answer.data["code"]) == (status, code)
    assert answer["Retry-After"] == "1"
    assert "secret" not in str(answer.data)


def test_a_bug_is_raised_and_answered_without_its_details(
    api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("scale.api.cluster.scheduler_state", fail)
    api.raise_request_exception = False
    answer = api.get("/scheduler/")
    assert is_problem(answer, 500, "error")
    assert b"secret" not in answer.content


def test_a_value_that_only_the_database_refuses_is_400(
    api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 3000000000::integer")

    monkeypatch.setattr("scale.api.cluster.scheduler_state", fail)
    assert is_problem(api.get("/scheduler/"), 400, "invalid")
