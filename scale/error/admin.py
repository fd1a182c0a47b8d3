"""The error catalogue in the admin."""

from django.contrib import admin

from scale.admin import WindowAdmin
from scale.error.models import Error


@admin.register(Error)
class ErrorAdmin(WindowAdmin):
    list_display = ("name", "title", "category", "should_be_retried", "is_builtin")
    list_filter = ("category", "should_be_retried", "is_builtin")
    search_fields = ("name", "title", "description")
    ordering = ("name",)
