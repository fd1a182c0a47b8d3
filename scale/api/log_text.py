"""Bytes of a log as text: cut where characters end, and as server-sent events."""

import json


def whole_characters(data: bytes) -> int:
    """Return how many bytes there are before a UTF-8 character that is only begun at the end."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0b1100_0000 == 0b1000_0000:
            continue  # in the middle of a character
        needs = 4 if 0xF0 <= byte <= 0xF4 else 3 if 0xE0 <= byte < 0xF0 else 2
        begun = 0xC2 <= byte <= 0xF4 and needs > back
        return len(data) - back if begun else len(data)
    return len(data)


def text_event(offset: int, data: bytes) -> bytes:
    """Return an event whose data is a JSON string; bytes that are not UTF-8 become U+FFFD."""
    return f"id: {offset}\ndata: {json.dumps(data.decode(errors='replace'))}\n\n".encode()


def named_event(name: str, offset: int, facts: dict[str, object]) -> bytes:
    return f"event: {name}\nid: {offset}\ndata: {json.dumps(facts)}\n\n".encode()
