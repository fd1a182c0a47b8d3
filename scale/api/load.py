"""/load/: how many jobs waited and ran, over time."""

from dataclasses import asdict
from datetime import timedelta
from typing import Final

from django.urls import path
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api.answers_operators import LoadAnswer
from scale.api.base import View
from scale.api.paging import page_of_all
from scale.api.parameters import Query
from scale.api.schema import PAGING, many, operation, paged, since
from scale.core.errors import InvalidInput
from scale.queue.selectors import OfJobTypes, load_at, load_samples

# The second is for the clock, which goes on between reading the start and the end.
_LONGEST: Final = timedelta(days=31, seconds=1)
_WEEK: Final = "P7D"


class Load(View):
    """The load as it was sampled, oldest first; a time without any work is there with zeros."""

    needs = {"GET": "queue.view_loadsample"}

    @operation(
        "list_load",
        "List how many jobs waited and ran over time",
        paged(LoadAnswer),
        parameters=[
            *PAGING,
            *since(_WEEK, "At most 31 days before `ended`."),
            many("job_type_id", OpenApiTypes.INT, "Only jobs of this job type."),
            many("job_type_name", OpenApiTypes.STR, "Only of job types with this name."),
            many("job_type_category", OpenApiTypes.STR, "Only of job types of this category."),
            many("job_type_priority", OpenApiTypes.INT, "Only of job types of this priority."),
        ],
        tag="load",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        started, ended = query.recently(_WEEK)
        wanted = OfJobTypes(
            ids=query.integers("job_type_id"),
            names=query.texts("job_type_name"),
            categories=query.texts("job_type_category"),
            priorities=query.integers("job_type_priority"),
        )
        page = query.page()
        query.done()
        if (ended or timezone.now()) - started > _LONGEST:
            raise InvalidInput("started", "must be at most 31 days before ended")
        return page_of_all(
            request,
            load_samples(started=started, ended=ended),
            page,
            ["measured"],
            lambda rows: [asdict(each) for each in load_at([at for (at,) in rows], wanted)],
        )


urlpatterns = [path("load/", Load.as_view())]
