"""The scheduler's row in the admin, with pause and resume."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from scale.admin import WindowAdmin
from scale.scheduler.models import SchedulerState
from scale.scheduler.services import pause_scheduler


@admin.register(SchedulerState)
class SchedulerStateAdmin(WindowAdmin):
    list_display = ("__str__", "is_paused", "is_connected", "leader", "master", "heartbeat")
    actions = ("pause", "resume")

    @admin.action(description="Pause: start nothing new anywhere", permissions=["operate"])
    def pause(self, request: HttpRequest, queryset: QuerySet[SchedulerState]) -> None:
        self.for_each(request, queryset, lambda _row: pause_scheduler(paused=True), "paused")

    @admin.action(description="Resume", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: QuerySet[SchedulerState]) -> None:
        self.for_each(request, queryset, lambda _row: pause_scheduler(paused=False), "resumed")
