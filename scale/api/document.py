"""/schema/: the OpenAPI document, made once in each process; making it takes seconds."""

import hashlib
from functools import cache

import orjson
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import etag, require_safe
from drf_spectacular.generators import SchemaGenerator


@cache
def _document() -> tuple[bytes, str]:
    """Return the document and its ETag."""
    generator = SchemaGenerator()  # type: ignore[no-untyped-call]
    made = generator.get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    document = orjson.dumps(made, default=str)
    return document, f'"{hashlib.sha256(document).hexdigest()[:32]}"'


@csrf_exempt  # else a forged POST would have its body read, however slowly it comes
@require_safe
@etag(lambda request: _document()[1])
def document(request: HttpRequest) -> HttpResponse:
    """Answer with the document. It holds no secret, and a client needs it before it can log in."""
    return HttpResponse(_document()[0], content_type="application/json")
