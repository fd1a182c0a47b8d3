"""Who may do what."""

from typing import TYPE_CHECKING, Final

from django.conf import settings
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

if TYPE_CHECKING:
    # It imports us: we are its default.
    from rest_framework.views import APIView

_READING: Final = frozenset({"GET", "HEAD"})


class LoggedIn(BasePermission):
    """Everybody who is logged in may do everything that a view does not keep for some.

    A view keeps a method with `needs = {"PATCH": "node.change_node"}`: staff may, and who has that
    permission, alone or by a group. SCALE_ANONYMOUS_READ opens reading to all the world.
    """

    def has_permission(self, request: Request, view: "APIView") -> bool:
        user = request.user
        if not user or not user.is_authenticated:
            return settings.SCALE_ANONYMOUS_READ and request.method in _READING
        needed: str | None = getattr(view, "needs", {}).get(request.method)
        return needed is None or user.is_staff or user.has_perm(needed)
