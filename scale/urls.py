"""Every address: the interface as it is, the same under /v3/, its description, and the admin."""

from django.contrib import admin
from django.urls import URLPattern, include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.permissions import AllowAny

from scale.api import (
    agent,
    catalogue,
    cluster,
    executions,
    files,
    health,
    history,
    job_lists,
    job_types,
    jobs,
    load,
    logs,
    many_jobs,
    metrics_catalogue,
    nodes,
    queueing,
    reports,
    requeueing,
    status,
    timeline,
)
from scale.api.document import document

# Fixed addresses come before those with ids in the same place.
_RESOURCES: list[URLPattern] = [
    *logs.urlpatterns,
    *history.urlpatterns,
    *job_lists.urlpatterns,
    *many_jobs.urlpatterns,
    *reports.urlpatterns,
    *executions.urlpatterns,
    *job_types.urlpatterns,
    *jobs.urlpatterns,
    *nodes.urlpatterns,
    *catalogue.urlpatterns,
    *cluster.urlpatterns,
    *status.urlpatterns,
    *queueing.urlpatterns,
    *files.urlpatterns,
    *load.urlpatterns,
    *metrics_catalogue.urlpatterns,
    *timeline.urlpatterns,
    *requeueing.urlpatterns,
]


def _not_described(pattern: URLPattern) -> URLPattern:
    """Return the pattern without its entry in the schema, which has each address once."""
    view = pattern.callback
    again = view.cls.as_view(**{**view.initkwargs, "schema": None})  # type: ignore[attr-defined]
    return URLPattern(pattern.pattern, again, pattern.default_args, pattern.name)


urlpatterns = [
    *_RESOURCES,
    path("v3/", include([_not_described(pattern) for pattern in _RESOURCES])),
    *health.urlpatterns,
    *status.metrics_urlpatterns,
    *agent.urlpatterns,
    path("schema/", document, name="schema"),
    path(
        "docs/",
        SpectacularSwaggerSplitView.as_view(
            url_name="schema",
            authentication_classes=[],
            permission_classes=[AllowAny],
            metadata_class=None,
        ),
    ),
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(pattern_name="admin:index")),
]
handler400 = "scale.api.errors.bad_request"
handler404 = "scale.api.errors.page_not_found"
handler500 = "scale.api.errors.server_error"
