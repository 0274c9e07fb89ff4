"""A chunk that would take the event loop too long is malformed; a long text is not."""

import json

import pytest

from godoty_service.errors import ProviderUnavailable
from godoty_service.openrouter.decoding.chunk import parse_chunk, parse_lines

TEXT = 'one, two, "three", \\ ' * 100_000


@pytest.mark.parametrize(
    "data",
    [
        b'{"usage": [' + b"0.1," * 50_001 + b"0]}",
        b'{"a": [' + b"[]," * 50_001 + b"0]}",
        b'{"a": [' + b'"",' * 100_001 + b"0]}",
        b'{"a": [' + b'"\\",",' * 50_001 + b"0]}",
    ],
    ids=["fractions", "lists", "texts", "escaped quotes"],
)
def test_too_many_values_are_malformed(data: bytes) -> None:
    """Of any kind."""
    json.loads(data)
    with pytest.raises(ProviderUnavailable, match="cannot be decoded"):
        parse_chunk(data)


@pytest.mark.parametrize("name", ["content", "usage"])
def test_long_text_with_many_commas_is_parsed(name: str) -> None:
    """Commas, quotes and backslashes within a text are no values."""
    assert parse_chunk(json.dumps({name: TEXT}).encode()) == {name: TEXT}


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_too_many_lines_are_not_parsed(end: bytes) -> None:
    """A document of a few lines is."""
    assert parse_lines((b"{}" + end) * 10_001) is None
    assert parse_lines((b"{}" + end) * 3) == [{}] * 3
