"""Logs as text: characters stay whole, whatever the bytes are."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scale.api.log_text import text_event, whole_characters


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b"", 0),
        (b"abc", 3),
        ("aé".encode(), 3),
        ("aé".encode()[:-1], 1),
        ("€".encode()[:2], 0),
        ("😀".encode(), 4),
        ("😀".encode()[:3], 0),
        ("😀".encode()[:1], 0),
        (b"a\xff", 2),  # can never become a character
        (b"a\x80\x80\x80", 4),
        (b"\xc0", 1),
        (b"ab\xe2", 2),
    ],
)
def test_only_a_character_that_may_still_become_one_is_held_back(data: bytes, whole: int) -> None:
    assert whole_characters(data) == whole


@given(st.text(), st.integers(min_value=0, max_value=40))
def test_cut_anywhere_the_parts_decode_to_the_whole(text: str, cut: int) -> None:
    data = text.encode()
    stop = whole_characters(data[:cut])
    assert data[:stop].decode() + data[stop:].decode() == text
    assert len(data[:cut]) - stop <= 3


@given(st.binary(max_size=50))
def test_any_bytes_make_one_line_of_json(data: bytes) -> None:
    event = text_event(7, data).decode()
    first, second, *rest = event.split("\n")
    assert (first, rest) == ("id: 7", ["", ""])
    assert json.loads(second.removeprefix("data: ")) == data.decode(errors="replace")
