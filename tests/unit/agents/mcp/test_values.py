"""The number of JSON values in an answer, counted before it is decoded."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.agents.mcp.values import ValueCount

JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)


def counted(*pieces: bytes) -> int:
    """Return the number of values in some pieces."""
    count = ValueCount()
    for each in pieces:
        count.add(each)
    return count.values


def expected(value: object) -> int:
    """Return the number of commas, objects and lists that a value has as JSON."""
    if not isinstance(value, dict | list):
        return 0
    children = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(0, len(children) - 1) + sum(map(expected, children))


@given(JSON, st.data())
def test_count_is_that_of_the_decoded_value(value: object, data: st.DataObject) -> None:
    """Wherever the pieces end, also within a string or an escape."""
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass")
    ends = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]

    assert counted(*pieces) == expected(value)
    assert counted(*(bytes([each]) for each in text)) == expected(value)


@pytest.mark.parametrize(
    "before", [b'id: "\n', b'id: "\r', b': \\"\\\n', b'event: "\\\r\n', b': "unfinished\\\\\\"\n', b"\\\n"]
)
def test_nothing_before_a_line_hides_what_is_in_it(before: bytes) -> None:
    """A quote in another line of an event begins no string, as no string of JSON goes on over the end of a line."""
    assert counted(before + b"data: [1,2,3]\n\n") == 3
    assert counted(before, b"data: [1,2,3]\n\n") == 3


def test_answers_are_counted_together() -> None:
    """The next one does not begin within a string of the one before."""
    count = ValueCount()
    count.add(b'[1,2,"')
    count.restart()
    count.add(b"[1,2]")

    assert count.values == 5
