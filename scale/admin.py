"""What every admin of ours is: a window, with buttons that call services."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from scale.core.errors import ScaleError

#: Rows that a button changes: each is a call of a service, and all are one request.
MOST_AT_ONCE: Final = 1000


class FirstRows(Paginator):
    """Counts up to `MOST` and pages no further: to count millions of rows takes seconds."""

    MOST = 10_000

    @cached_property
    def count(self) -> int:
        assert isinstance(self.object_list, QuerySet)
        return self.object_list.order_by()[: self.MOST].count()


class WindowAdmin(ModelAdmin):
    """Shows rows and never edits them; an action needs the model's change permission."""

    list_per_page = 50
    paginator = FirstRows
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
        """Call a service for each chosen row, and tell how many it took and why not the others.

        Of more than MOST_AT_ONCE it changes none.
        """
        chosen = list(rows[: MOST_AT_ONCE + 1])
        if len(chosen) > MOST_AT_ONCE:
            text = f"More than {MOST_AT_ONCE} are chosen; nothing was changed. Choose fewer."
            self.message_user(request, text, messages.ERROR)
            return
        count = 0
        for row in chosen:
            try:
                service(row)
            except ScaleError as error:
                self.message_user(request, f"{row}: {error}", messages.ERROR)
            else:
                count += 1
        if count:
            self.message_user(request, f"{count} {done}", messages.SUCCESS)
