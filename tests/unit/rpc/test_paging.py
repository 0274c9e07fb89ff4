"""Page tokens: the service's own are accepted, all others are refused without a fault."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.errors import InvalidRequest
from godoty_service.rpc.pagination import decode_time, decode_token, encode_token, page_size

QUERY = ("sessions", "tenant", "user")
TEXT = st.text(st.characters(max_codepoint=127), max_size=9)
PLACES = st.lists(st.integers(-(2**62), 2**62) | TEXT, min_size=1, max_size=3)


def kinds_of(place: list[Any]) -> tuple[type, ...]:
    """Return the types of a position's values."""
    return tuple(map(type, place))


@given(place=PLACES, query=st.lists(st.text(max_size=5), min_size=1, max_size=4).map(tuple))
def test_token_returns_its_position_to_its_own_query_only(place: list[Any], query: tuple[str, ...]) -> None:
    """Encoding and decoding keep the position; any difference in the query is refused."""
    token, kinds = encode_token(query, place), kinds_of(place)
    assert decode_token(token, query, *kinds) == place

    for other in ((*query, "more"), query[1:], tuple(f"{each}x" for each in query)):
        with pytest.raises(InvalidRequest):
            decode_token(token, other, *kinds)


@given(token=st.text(min_size=1, max_size=60))
def test_arbitrary_text_is_refused(token: str) -> None:
    """Any other text is INVALID_FIELD, never an internal error."""
    with pytest.raises(InvalidRequest) as caught:
        decode_token(token, QUERY, str)
    assert [each.field for each in caught.value.violations] == ["page_token"]


@given(place=PLACES, at=st.integers(0), sign=st.sampled_from("AZaz09-_"))
def test_altered_token_never_changes_the_position(place: list[Any], at: int, sign: str) -> None:
    """With one character changed, a token is refused or has the same position."""
    token = encode_token(QUERY, place)
    altered = token[: at % len(token)] + sign + token[at % len(token) + 1 :]
    try:
        found = decode_token(altered, QUERY, *kinds_of(place))
    except InvalidRequest:
        return
    assert found == place  # the last sign may hold bits that mean nothing


@pytest.mark.parametrize(
    "place",
    [
        [],
        [1],
        ["a", "b"],
        ["a", 1, 2],
        ["a", True],
        ["a", None],
        ["a", 1.5],
        ["a", [1]],
        [{"$gt": ""}, 1],
        ["a", 2**63],
    ],
    ids=str,
)
def test_forged_token_of_another_shape_is_refused(place: list[Any]) -> None:
    """A caller who knows the encoding can put only text and integers into a query."""
    with pytest.raises(InvalidRequest):
        decode_token(encode_token(QUERY, place), QUERY, str, int)


def test_empty_token_is_the_first_page() -> None:
    """An empty token starts at the beginning."""
    assert decode_token("", QUERY, str) is None


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01T00:00:00", "0001-01-01T00:00:00+23:59", "2026"])
def test_invalid_time_in_a_token_is_refused(text: str) -> None:
    """A time in a token is checked like the rest of it."""
    with pytest.raises(InvalidRequest):
        decode_time(text)


def test_time_is_decoded_in_utc() -> None:
    """The offset is converted."""
    assert decode_time("2026-08-22T14:00:00.123000+02:00") == datetime(2026, 8, 22, 12, 0, 0, 123_000, tzinfo=UTC)


@pytest.mark.parametrize(("asked", "size"), [(0, 50), (1, 1), (500, 500), (501, 500), (2**31 - 1, 500)])
def test_page_sizes_have_a_default_and_a_limit(asked: int, size: int) -> None:
    """0 is the default; a larger size than the limit is the limit."""
    assert page_size(asked, default=50) == size


def test_negative_page_size_is_refused() -> None:
    """A negative size is INVALID_FIELD."""
    with pytest.raises(InvalidRequest):
        page_size(-1, default=50)
