"""Job types, jobs, executions and files in the admin; what is changed is changed by services."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from scale.admin import WindowAdmin
from scale.core.lifecycle import State, events_from
from scale.job.asked import BulkAction, IdempotencyKey
from scale.job.editing import change_job_type
from scale.job.models import (
    ArchivedLog,
    ExecutionEvent,
    File,
    Job,
    JobExecution,
    JobType,
    JobTypeRevision,
    TriggerEvent,
)
from scale.job.services import cancel_job, requeue_job


@admin.register(JobType)
class JobTypeAdmin(WindowAdmin):
    list_display = ("name", "version", "title", "category", "priority", "is_paused", "revision_num")
    list_filter = ("is_paused", "is_active", "category")
    search_fields = ("name", "title")
    ordering = ("name", "version")
    actions = ("pause", "resume")

    @admin.action(description="Pause: start no more of it", permissions=["operate"])
    def pause(self, request: HttpRequest, queryset: QuerySet[JobType]) -> None:
        self._pause(request, queryset, paused=True)

    @admin.action(description="Resume", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: QuerySet[JobType]) -> None:
        self._pause(request, queryset, paused=False)

    def _pause(self, request: HttpRequest, types: QuerySet[JobType], *, paused: bool) -> None:
        at = timezone.now()
        self.for_each(
            request,
            types,
            lambda job_type: change_job_type(job_type.pk, {"is_paused": paused}, at=at),
            "paused" if paused else "resumed",
        )


@admin.register(JobTypeRevision)
class JobTypeRevisionAdmin(WindowAdmin):
    list_display = ("job_type", "revision_num", "created")
    list_select_related = ("job_type",)
    ordering = ("-id",)


@admin.register(Job)
class JobAdmin(WindowAdmin):
    list_display = ("id", "name", "job_type", "status", "error", "priority", "num_exes", "created")
    list_filter = ("status",)
    list_select_related = ("job_type", "error")
    search_fields = ("=id", "name")
    ordering = ("-id",)
    actions = ("cancel", "requeue")

    @admin.action(description="Cancel", permissions=["operate"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        at = timezone.now()
        self.for_each(request, queryset, lambda job: cancel_job(job.pk, at=at), "canceled")

    @admin.action(description="Requeue: try again", permissions=["operate"])
    def requeue(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        at = timezone.now()
        self.for_each(request, queryset, lambda job: requeue_job(job.pk, at=at), "requeued")


@admin.register(JobExecution)
class JobExecutionAdmin(WindowAdmin):
    list_display = ("id", "job", "exe_num", "status", "phase", "next_events", "node", "error")
    list_filter = ("status", "phase")
    list_select_related = ("job", "node", "error")
    search_fields = ("=id", "=uuid")
    ordering = ("-id",)

    @admin.display(description="may")
    def next_events(self, execution: JobExecution) -> str:
        return ", ".join(sorted(events_from(State(execution.state))))


@admin.register(ExecutionEvent)
class ExecutionEventAdmin(WindowAdmin):
    list_display = ("id", "execution", "at", "event", "state", "phase", "message")
    list_filter = ("event",)
    search_fields = ("=execution__id",)
    list_select_related = ("execution",)
    ordering = ("-id",)


@admin.register(TriggerEvent)
class TriggerEventAdmin(WindowAdmin):
    list_display = ("id", "type", "occurred", "description")
    ordering = ("-id",)


@admin.register(File)
class FileAdmin(WindowAdmin):
    list_display = ("id", "name", "size", "media_type", "created", "uploaded_by", "execution")
    list_select_related = ("uploaded_by", "execution")
    search_fields = ("=id", "name", "=sha256")
    ordering = ("-id",)


@admin.register(ArchivedLog)
class ArchivedLogAdmin(WindowAdmin):
    list_display = ("id", "execution", "phase", "stream", "size", "lost", "archived")
    list_filter = ("lost",)
    list_select_related = ("execution",)
    ordering = ("-id",)


@admin.register(BulkAction)
class BulkActionAdmin(WindowAdmin):
    list_display = ("id", "kind", "requested_by", "created", "finished", "done", "failed")
    list_filter = ("kind",)
    list_select_related = ("requested_by",)
    ordering = ("-id",)


@admin.register(IdempotencyKey)
class IdempotencyKeyAdmin(WindowAdmin):
    list_display = ("id", "user", "key", "created")
    list_select_related = ("user",)
    ordering = ("-id",)
