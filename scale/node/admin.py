"""Nodes in the admin, with pause and resume."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from scale.admin import WindowAdmin
from scale.node.models import Node
from scale.node.selectors import WITH_HEALTH
from scale.node.services import NodeChange, change_node


class HealthFilter(admin.SimpleListFilter):
    """Nodes by the worst that is true of them."""

    title = "health"
    parameter_name = "health"

    def lookups(
        self, request: HttpRequest, model_admin: "admin.ModelAdmin[Node]"
    ) -> list[tuple[str, str]]:
        return [(each.value, each.label) for each in Node.Health]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Node]) -> QuerySet[Node]:
        wanted = WITH_HEALTH.get(self.value() or "")
        return queryset if wanted is None else queryset.filter(wanted)


@admin.register(Node)
class NodeAdmin(WindowAdmin):
    list_display = ("hostname", "address", "port", "health", "health_reason", "is_active")
    list_filter = (HealthFilter, "is_online", "is_paused", "is_active")
    search_fields = ("hostname", "slave_id")
    ordering = ("hostname",)
    actions = ("pause", "resume")

    @admin.action(description="Pause: start nothing new there", permissions=["operate"])
    def pause(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        self._change(request, queryset, NodeChange(is_paused=True), "paused")

    @admin.action(description="Resume", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        self._change(request, queryset, NodeChange(is_paused=False), "resumed")

    def _change(
        self, request: HttpRequest, nodes: QuerySet[Node], change: NodeChange, done: str
    ) -> None:
        at = timezone.now()
        self.for_each(request, nodes, lambda node: change_node(node.pk, change, at=at), done)
