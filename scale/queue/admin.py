"""The queue in the admin, most urgent first."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from scale.admin import WindowAdmin
from scale.job.services import cancel_job
from scale.queue.models import QueuedExecution


@admin.register(QueuedExecution)
class QueuedExecutionAdmin(WindowAdmin):
    list_display = ("id", "job", "job_type", "priority", "queued", "exe_num")
    list_select_related = ("job", "job_type")
    ordering = ("priority", "queued", "id")
    actions = ("cancel",)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("job.change_job")

    @admin.action(description="Cancel their jobs", permissions=["operate"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[QueuedExecution]) -> None:
        at = timezone.now()
        self.for_each(request, queryset, lambda row: cancel_job(row.job_id, at=at), "canceled")
