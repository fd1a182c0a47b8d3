"""/files/: what comes in and what is made."""

from typing import Any, Final

from django.core.files.storage import default_storage
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotModified,
    QueryDict,
    StreamingHttpResponse,
)
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils import timezone
from django.utils.http import content_disposition_header
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, bodies, shapes
from scale.api.base import Link, View, created, key_of, links, no_parameters
from scale.api.errors import NotFound
from scale.api.list_schema import parts_of, walking
from scale.api.outlines import Item, item_by_shape
from scale.api.paging import list_of
from scale.api.parameters import Query
from scale.api.ranges import FilePart, byte_range
from scale.api.schema import CONDITIONS, ID, answer_header, operation
from scale.api.uploads import BoundedUploadHandler, most_bytes
from scale.core.errors import InvalidInput
from scale.job.files import UNKNOWN_MEDIA_TYPE, ReceivedFile, store_file
from scale.job.lists import Rows
from scale.job.models import File as FileRow
from scale.job.selectors import FILE_ORDER, files

# What a browser may be told to show; nothing that can run a script.
_SHOWN: Final = frozenset(
    {
        "application/gzip",
        "application/json",
        "application/zip",
        "audio/mpeg",
        "audio/ogg",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/tiff",
        "image/webp",
        "text/csv",
        "text/plain",
        "video/mp4",
        "video/webm",
    }
)
#: Most say what they hold; what a browser might run does not.
_SERVED: Final = [UNKNOWN_MEDIA_TYPE, *sorted(_SHOWN)]
_DISPOSITION: Final = answer_header(
    "Content-Disposition", "An attachment with the file's name.", (), (200, 206)
)


def _item(link: Link) -> Item:
    """Return the items of the list, whose addresses depend on where they are asked for."""
    names = tuple(answers.FileAnswer().fields)
    return item_by_shape(names, shapes.FILE_COLUMNS, shapes.file_row(link))


class Files(View):
    """What was uploaded, and what executions made."""

    needs = {"GET": "job.view_file", "POST": "job.add_file"}

    parser_classes = [MultiPartParser]

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """Take files; before the check for forged requests, which reads the body of a session."""
        request.upload_handlers = [BoundedUploadHandler(request)]
        return super().initialize_request(request, *args, **kwargs)

    @operation(
        "list_files",
        "List files",
        parts_of(answers.FileAnswer),
        parameters=walking(_item(str), FILE_ORDER, "file was stored; its time"),
        tag="files",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        started, ended = query.period()
        item = _item(links(request))
        asked = query.asked(FILE_ORDER, ["created"], item.names)
        query.done()
        return list_of(request, Rows(files(started=started, ended=ended)), item, asked)

    @operation(
        "upload_file",
        "Upload a file",
        answers.FileAnswer,
        status=201,
        body={"multipart/form-data": bodies.Upload},
        problems=(400, 401, 413, 415),
        tag="files",
    )
    def post(self, request: Request) -> Response:
        no_parameters(request)
        upload = _uploaded(request)
        file = store_file(
            name=upload.name or "",
            media_type=upload.content_type or UNKNOWN_MEDIA_TYPE,
            stream=upload,
            at=timezone.now(),
            uploaded_by=request.user if request.user.is_authenticated else None,
            max_bytes=most_bytes(),
        )
        return created(request, f"/files/{file.pk}/", shapes.file(file, links(request)))


def _uploaded(request: Request) -> ReceivedFile:
    """Return the one part that there may be."""
    if not isinstance(request.data, QueryDict):
        # There was no body: nobody has looked at its type.
        raise InvalidInput("file", "must come once, as a part with a file name")
    unknown = sorted(set(request.data) - {"file"})
    if unknown:
        raise InvalidInput(unknown[0][:80], "is not a field here")
    found = request.FILES.getlist("file")
    if len(found) != 1 or len(request.data.getlist("file")) != 1:
        raise InvalidInput("file", "must come once, as a part with a file name")
    assert isinstance(found[0], ReceivedFile)
    return found[0]


class File(View):
    """One file, without its bytes."""

    needs = {"GET": "job.view_file"}

    @operation(
        "read_file",
        "Read about a file",
        answers.FileAnswer,
        parameters=[ID],
        problems=(400, 401, 404),
        tag="files",
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        no_parameters(request)
        return Response(shapes.file(_found(id), links(request)))


class FileContent(View):
    """The bytes of a file."""

    needs = {"GET": "job.view_file"}

    @operation(
        "download_file",
        "Download a file",
        {
            **{(status, kind): OpenApiTypes.BINARY for status in (200, 206) for kind in _SERVED},
            304: OpenApiResponse(description="Nothing has changed."),
        },
        parameters=[ID, *CONDITIONS, _DISPOSITION],
        problems=(400, 401, 404, 416),
        tag="files",
    )
    def get(
        self,
        request: Request,
        id: str,  # noqa: A002 - the name in the schema
    ) -> HttpResponseBase:
        no_parameters(request)
        file = _found(id)
        etag = f'"{file.sha256}"'
        if etag in request.META.get("HTTP_IF_NONE_MATCH", ""):
            return HttpResponseNotModified(headers={"ETag": etag})
        # A part of another version would be worse than the whole of this one.
        fresh = request.META.get("HTTP_IF_RANGE", etag) == etag
        wanted = byte_range(request.META.get("HTTP_RANGE") if fresh else None, file.size)
        return _content(file, etag, wanted, head=request.method == "HEAD")


def _found(text: str) -> FileRow:
    key = key_of(text, "file")
    found = FileRow.objects.filter(pk=key).first()
    if found is None:
        raise NotFound("file", key)
    return found


def _content(
    file: FileRow, etag: str, wanted: tuple[int, int] | None, *, head: bool
) -> HttpResponseBase:
    start, end = wanted or (0, file.size)
    headers: dict[str, Any] = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": content_disposition_header(True, file.name),
        "Content-Length": end - start,
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Content-Type": file.media_type if file.media_type in _SHOWN else UNKNOWN_MEDIA_TYPE,
        "ETag": etag,
        "X-Content-Type-Options": "nosniff",
    }
    status = 200
    if wanted:
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    if head:
        return HttpResponse(status=status, headers=headers)
    try:
        stored = default_storage.open(file.storage_name)
    except FileNotFoundError:
        raise NotFound("stored file", file.pk) from None
    return StreamingHttpResponse(FilePart(stored, start, end), status=status, headers=headers)


urlpatterns = [
    path("files/", Files.as_view()),
    path("files/<str:id>/", File.as_view()),
    path("files/<str:id>/content/", FileContent.as_view()),
]
