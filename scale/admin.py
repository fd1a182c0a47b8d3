"""What every admin of ours is: a window, with buttons that call services."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from scale.core.errors import ScaleError


class WindowAdmin(ModelAdmin):
    """Shows rows and never edits them; an action needs the model's change permission."""

    list_per_page = 50
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Say whether the user may press our buttons; see `actions`' permissions."""
        meta = self.model._meta
        return request.user.has_perm(f"{meta.app_label}.change_{meta.model_name}")

    def for_each(
        self,
        request: HttpRequest,
        rows: "QuerySet[Any]",
        service: Callable[[Any], object],
        done: str,
    ) -> None:
        """Call a service for each chosen row, and tell how many it took and why not the others."""
        count = 0
        for row in rows:
            try:
                service(row)
            except ScaleError as error:
                self.message_user(request, f"{row}: {error}", messages.ERROR)
            else:
                count += 1
        if count:
            self.message_user(request, f"{count} {done}", messages.SUCCESS)
