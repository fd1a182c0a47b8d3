"""`HttpParser`: an incremental HTTP parser with the surface that pymesos calls."""

import httptools

REQUEST = 0


class HttpParser:
    """Parse one HTTP message that arrives in pieces.

    `kind` is 0 for a request; anything else parses a response, as in http-parser.
    `decompress` is accepted and ignored: Mesos sends its stream uncompressed.
    """

    def __init__(self, kind: int = 2, decompress: bool = False) -> None:
        parser = httptools.HttpRequestParser if kind == REQUEST else httptools.HttpResponseParser
        self._parser = parser(self)
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._headers_complete = self._message_complete = False
        self._errno = 0

    def execute(self, data: bytes, length: int) -> int:
        """Feed `length` bytes; return how many were taken, 0 after a protocol error."""
        try:
            self._parser.feed_data(memoryview(data)[:length])
        except httptools.HttpParserError:
            self._errno = 1
            return 0
        return length

    def recv_body(self) -> bytes:
        """Return the body bytes that arrived since the last call."""
        body = bytes(self._body)
        self._body.clear()
        return body

    def get_errno(self) -> int:
        return self._errno

    def is_headers_complete(self) -> bool:
        return self._headers_complete

    def is_message_complete(self) -> bool:
        return self._message_complete

    def is_partial_body(self) -> bool:
        return bool(self._body)

    def is_chunked(self) -> bool:
        return self._headers.get("Transfer-Encoding", "").lower() == "chunked"

    def should_keep_alive(self) -> bool:
        return self._parser.should_keep_alive()

    def get_status_code(self) -> int:
        return self._parser.get_status_code()

    def get_headers(self) -> dict[str, str]:
        return dict(self._headers)

    def get_method(self) -> str:
        return self._parser.get_method().decode()

    def get_url(self) -> str:
        return self._url.decode()

    def get_path(self) -> str:
        return self._url.partition(b"?")[0].decode()

    def get_query_string(self) -> str:
        return self._url.partition(b"?")[2].decode()

    # What httptools calls back.

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").title()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._headers_complete = True

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._message_complete = True
