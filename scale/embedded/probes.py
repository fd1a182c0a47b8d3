"""Ask web how it is, without a thread and without a client library."""

import asyncio
import json
from contextlib import suppress

_ANSWER_S = 5.0
_MOST_BYTES = 65536
_WELL = {"ok", "not configured"}


async def get(host: str, port: int, path: str) -> tuple[int, bytes]:
    """Return status and body of a GET; (0, b"") when there is no answer.

    HTTP/1.0, so that the body is neither chunked nor followed by another answer.
    """
    question = f"GET {path} HTTP/1.0\r\nHost: {_host(host)}:{port}\r\n\r\n"
    answer = b""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(question.encode())
                while len(answer) < _MOST_BYTES and (more := await reader.read(_MOST_BYTES)):
                    answer += more
            finally:
                writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        words = head.split(maxsplit=2)
        if len(words) > 1 and words[1].isdigit():
            return int(words[1]), body
    return 0, b""


def what_is_missing(status: int, body: bytes) -> str | None:
    """Put the answer of /readyz into words; None when all is well."""
    if status == 200:
        return None
    with suppress(ValueError):
        found = json.loads(body)
        if isinstance(found, dict):
            wrong = [f"{name} {text}" for name, text in found.items() if text not in _WELL]
            return ", ".join(wrong)
    return f"web answers with status {status}" if status else "web does not answer"


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
