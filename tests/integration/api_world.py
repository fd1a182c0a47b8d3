"""All addresses as the code has them, and a world with one thing of each kind to ask for."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final

from django.apps import apps
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client, override_settings
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator
from knox.models import AuthToken

from scale.api.permissions import Role
from scale.core.lifecycle import State
from scale.error.models import Error
from scale.job.asked import BulkAction
from scale.job.files import store_file
from scale.job.models import File, JobExecution

# What is no view of ours: the description and its pages, code for agents.
OTHERS: Final = {"/schema/", "/docs/", "/", "/agent/steps.pyz"}
PARAMETER: Final = r"\(\?P<(\w+)>[^)]*\)|<(?:\w+:)?(\w+)>"
COUNTED: Final = ("error", "node", "job", "queue", "scheduler")


def views(patterns: list[URLPattern | URLResolver], prefix: str = "/") -> Iterator[tuple[str, Any]]:
    """Yield the path template of each pattern and the view that is behind it, if it is DRF's."""
    for pattern in patterns:
        path = prefix + re.sub(PARAMETER, r"{\1\2}", str(pattern.pattern))
        path = path.replace("^", "").replace("$", "").replace("{pk}", "{id}")
        if isinstance(pattern, URLResolver):
            yield from views(pattern.url_patterns, path)
        else:
            yield path, getattr(pattern.callback, "cls", None)


OURS: Final = [
    (path, view)
    for path, view in views(get_resolver().url_patterns)
    if path not in OTHERS and not path.startswith(("/admin/", "/v3/")) and view is not None
]
METHODS: Final = ("get", "post", "put", "patch", "delete")
OPERATIONS: Final = sorted(
    (method, path) for path, view in OURS for method in METHODS if hasattr(view, method)
)
FOR_PEOPLE: Final = [each for each in OPERATIONS if not each[1].startswith("/agent/")]
FOR_TASKS: Final = [each for each in OPERATIONS if each[1].startswith("/agent/")]


def described() -> Any:
    """Return the OpenAPI document; it takes seconds."""
    return SchemaGenerator().get_schema(  # type: ignore[no-untyped-call]
        request=None, public=True
    )


@dataclass
class World:
    """One real thing of each kind, and a body for each method that takes one."""

    running: JobExecution
    queued: JobExecution
    failed: JobExecution
    error: Error
    file: File
    action: int
    tokens: dict[str, str] = field(default_factory=dict)

    def key(self, path: str) -> int:
        return {
            "jobs": self.queued.job_id,
            "job-executions": self.running.pk,
            "job-types": self.queued.job_type_id,
            "nodes": self.running.node_id or 0,
            "errors": self.error.pk,
            "files": self.file.pk,
            "bulk-actions": self.action,
        }[path.split("/")[1]]

    def body(self, method: str, path: str) -> dict[str, Any]:
        """Return a body that is good, and changes something."""
        job_type, node = self.queued.job_type_id, self.running.node
        assert node is not None
        bodies: dict[tuple[str, str], dict[str, Any]] = {
            ("post", "/jobs/"): {"job_type_id": job_type},
            ("patch", "/jobs/{id}/"): {"status": "CANCELED"},
            ("post", "/jobs/bulk/"): {"jobs": [{"job_type_id": job_type}]},
            ("post", "/jobs/cancel/"): {"all": True},
            ("post", "/jobs/requeue/"): {"all": True},
            ("post", "/queue/new-job/"): {"job_type_id": job_type},
            ("post", "/queue/requeue-jobs/"): {"job_ids": [self.failed.job_id]},
            ("post", "/queue/requeue-job/"): {"job_id": self.failed.job_id},
            ("post", "/job-types/"): {
                "name": "n",
                "version": "1",
                "interface": {"command": "true"},
            },
            ("post", "/job-types/validation/"): {
                "name": "n",
                "version": "1",
                "interface": {"command": "true"},
            },
            ("patch", "/job-types/{id}/"): {"is_paused": True},
            ("patch", "/nodes/{id}/"): {"is_paused": True},
            ("put", "/nodes/{id}/"): {
                "hostname": node.hostname,
                "port": node.port,
                "is_paused": True,
                "is_active": True,
            },
            ("post", "/errors/"): {
                "name": "new",
                "title": "New",
                "description": "New.",
                "category": "DATA",
            },
            ("patch", "/errors/{id}/"): {"title": "Changed"},
            ("patch", "/scheduler/"): {"is_paused": True},
            ("post", "/files/"): {"file": SimpleUploadedFile("a.txt", b"text")},
        }
        return bodies[method, path]

    def call(self, who: str, method: str, path: str) -> Any:
        address = path.replace("{stream}", "stdout")
        if "{id}" in path:
            address = address.replace("{id}", str(self.key(path)))
        token = self.tokens.get(who)
        headers = {"Authorization": f"Token {token}"} if token else {}
        more: dict[str, Any] = {}
        if method != "get":
            body = self.body(method, path)
            more = {"data": body}
            if path != "/files/":
                more["content_type"] = "application/json"
        with override_settings(SCALE_ANONYMOUS_READ=who == "public"):
            answer = getattr(Client(), method)(address, headers=headers, **more)
        b"".join(answer)  # what streams is open until it was read
        return answer


def make_world(
    make_execution: Callable[..., JobExecution],
    make_node: Callable[..., Any],
    make_user: Callable[..., Any],
) -> World:
    """Make it with the fixtures of these names."""
    failed = make_execution(State.FAILED)
    error = Error.objects.create(name="e", title="E", description="E.", category="DATA")
    file = store_file(
        name="a.txt",
        media_type="text/plain",
        stream=BytesIO(b"text"),
        at=timezone.now(),
        max_bytes=100,
    )
    users = {
        **{role.value: make_user(role=role.value) for role in Role},
        "boss": make_user(is_superuser=True),
        "staff": make_user(is_staff=True),
        "nobody": make_user(),
    }
    action = BulkAction.objects.create(
        kind="cancel", filters={}, created=timezone.now(), last_id=0, finished=timezone.now()
    )
    return World(
        running=make_execution(State.RUNNING, node=make_node(port=1)),
        queued=make_execution(State.QUEUED),
        failed=failed,
        error=error,
        file=file,
        action=action.pk,
        tokens={name: AuthToken.objects.create(user)[1] for name, user in users.items()},
    )


def rows() -> dict[str, list[Any]]:
    """Return all rows of ours."""
    return {
        model._meta.label: list(model._base_manager.order_by("pk").values())
        for app in COUNTED
        for model in apps.get_app_config(app).get_models()
    }
