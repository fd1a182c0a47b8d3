"""Uploads go to disk as they come, measured, and stop when they are too large."""

from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadhandler import FileUploadHandler

from scale.job.files import UNKNOWN_MEDIA_TYPE, ReceivedFile

#: What a multipart body has besides its file: boundaries and headers of parts.
_ENVELOPE_BYTES = 64 * 1024


def most_bytes() -> int:
    """Return how many bytes one upload may have."""
    return int(settings.SCALE_MAX_UPLOAD_MIB) * 1024 * 1024


class NoUploads(FileUploadHandler):
    """Refuses files wherever no view has asked for them; nothing of theirs is kept or stored."""

    chunk_size = 64 * 1024

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        raise RequestDataTooBig("No file is taken here.")

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        """Never called: no file is begun."""

    def file_complete(self, file_size: int) -> None:
        """Never called, likewise."""


class BoundedUploadHandler(FileUploadHandler):
    """Takes what a request uploads, up to SCALE_MAX_UPLOAD_MIB in all."""

    chunk_size = 256 * 1024

    def handle_raw_input(
        self,
        input_data: Any,
        META: dict[str, Any],  # noqa: N803 - Django's name
        content_length: int,
        boundary: str,
        encoding: str | None = None,
    ) -> None:
        """Refuse by the announced length, before anything is read."""
        self._left = most_bytes()
        if content_length > self._left + _ENVELOPE_BYTES:
            raise self._too_large()

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        # Django closes what a handler has as `file` when it skips the part.
        self.file = ReceivedFile(self.file_name or "", self.content_type or UNKNOWN_MEDIA_TYPE)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self._left -= len(raw_data)
        if self._left < 0:
            self.file.close()
            raise self._too_large()
        self.file.add(raw_data)

    def file_complete(self, file_size: int) -> ReceivedFile:
        self.file.flush()
        self.file.seek(0)
        return self.file

    def _too_large(self) -> RequestDataTooBig:
        return RequestDataTooBig(f"An upload may have at most {settings.SCALE_MAX_UPLOAD_MIB} MiB.")
