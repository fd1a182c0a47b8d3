"""Who may do what: the roles, and the check of what a view says that it needs.

A role is a group of Django's permissions. The same permissions are asked for by the views, said in
the schema and honoured by the admin site.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.conf import settings
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

if TYPE_CHECKING:
    # It imports us: we are its default.
    from rest_framework.views import APIView

#: What a view may need instead of a permission: nothing, a log-in, the token of a running task.
ANYBODY: Final = "anybody"
LOGGED_IN: Final = "logged-in"
TASK: Final = "task"

_READING: Final = frozenset({"GET", "HEAD"})
_OUR_APPS: Final = ("error", "node", "job", "queue", "scheduler")


class Role(StrEnum):
    """Each may do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


#: What a role may that the one before it may not; viewers read everything.
_ADDED: Final[Mapping[Role, frozenset[str]]] = {
    Role.VIEWER: frozenset(),
    Role.OPERATOR: frozenset(
        {
            "job.add_job",
            "job.change_job",
            "job.add_file",
            "job.change_jobtype",
            "node.change_node",
            "scheduler.change_schedulerstate",
        }
    ),
    # Whoever edits a job type runs any command on all nodes, as whoever adds one does.
    Role.ADMIN: frozenset(
        {
            "job.add_jobtype",
            "error.add_error",
            "error.change_error",
            "node.delete_node",
        }
    ),
}


def permissions_of(role: Role) -> frozenset[str]:
    """Return the permissions of a role, such as `node.change_node`."""
    reading = {
        f"{label}.view_{model._meta.model_name}"
        for label in _OUR_APPS
        for model in apps.get_app_config(label).get_models()
    }
    roles = list(Role)
    return frozenset(reading).union(*(_ADDED[each] for each in roles[: roles.index(role) + 1]))


def roles_with(needed: str) -> list[str]:
    """Return who may do what needs this: roles, or `anybody`, or `logged-in`; for the schema."""
    if needed in {ANYBODY, LOGGED_IN}:
        return [needed]
    return [role.value for role in Role if needed in permissions_of(role)]


def make_roles(**_: Any) -> None:
    """Make the groups of the roles, or bring them up to date; 2 queries if they are.

    A receiver of post_migrate. What else such a group was given is taken away.
    """
    from django.contrib.auth.models import Group, Permission

    existing = {
        f"{label}.{codename}": key
        for key, label, codename in Permission.objects.filter(
            content_type__app_label__in=_OUR_APPS
        ).values_list("pk", "content_type__app_label", "codename")
    }
    for role in Role:
        group, _is_new = Group.objects.get_or_create(name=role.value)
        # After a partial migration some of them are not there yet.
        group.permissions.set(existing[name] for name in permissions_of(role) & existing.keys())


def needed_by(view: "APIView | type[APIView]", method: str | None) -> str | None:
    """Return what a method of a view needs; None if it says nothing, and so nobody may."""
    needs: Mapping[str, str] = getattr(view, "needs", {})
    return needs.get("GET" if method == "HEAD" else method or "")


class AsNeeded(BasePermission):
    """Whoever has the permission that the view names in `needs` may; without that, nobody.

    SCALE_ANONYMOUS_READ opens to all what needs no more than a permission to view.
    """

    def has_permission(self, request: Request, view: "APIView") -> bool:
        needed = needed_by(view, request.method)
        if needed == ANYBODY or (_is_reading(request, needed) and settings.SCALE_ANONYMOUS_READ):
            return True
        if needed == TASK:
            return request.auth is not None
        if not request.user or not request.user.is_authenticated:
            # Where nobody logs in, what is not there is a 405, as it is to who has logged in.
            return _is_absent(request, view) and not view.authentication_classes
        if needed is None:
            return _is_absent(request, view)
        return needed == LOGGED_IN or request.user.has_perm(needed)


def _is_absent(request: Request, view: "APIView") -> bool:
    return request.method == "OPTIONS" or not hasattr(view, str(request.method).lower())


def _is_reading(request: Request, needed: str | None) -> bool:
    if request.method not in _READING or needed is None:
        return False
    return needed == LOGGED_IN or needed.partition(".")[2].startswith("view_")


def require_for_fields(request: Request, names: Collection[str]) -> None:
    """Check the permissions that the view's `field_needs` keeps fields of a body for.

    Raises PermissionDenied.
    """
    view = (request.parser_context or {}).get("view")
    kept: Mapping[str, str] = getattr(view, "field_needs", {})
    for name in sorted(kept.keys() & set(names)):
        if not request.user.has_perm(kept[name]):
            raise PermissionDenied(f"You do not have permission to set {name}.")
