"""JSON as Mesos sends it."""

import json
from typing import Any

import orjson

JsonObject = dict[str, Any]


def parse(data: bytes | bytearray) -> JsonObject:
    """Return the object in `data`; raise ValueError if there is none.

    Mesos copies bytes of tasks' messages into its JSON unchecked, so that it can hold invalid
    UTF-8 (contract, section 8): those become replacement characters instead of an error.
    """
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        document = json.loads(data.decode(errors="replace"), strict=False)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one error for all bad input
    return document
