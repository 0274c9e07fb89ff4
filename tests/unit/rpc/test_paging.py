"""Page tokens: ours are read, others are refused, and nothing breaks."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.errors import InvalidRequest
from godoty_service.rpc.paging import page_size, read_place, read_time, write_token

QUERY = ("sessions", "tenant", "user")
TEXT = st.text(st.characters(max_codepoint=127), max_size=9)
PLACES = st.lists(st.integers(-(2**62), 2**62) | TEXT, min_size=1, max_size=3)


def kinds_of(place: list[Any]) -> tuple[type, ...]:
    """What a place consists of."""
    return tuple(map(type, place))


@given(place=PLACES, query=st.lists(st.text(max_size=5), min_size=1, max_size=4).map(tuple))
def test_a_token_tells_its_place_to_its_own_query(place: list[Any], query: tuple[str, ...]) -> None:
    """Written and read, the place is the same; a query that differs in anything refuses it."""
    token, kinds = write_token(query, place), kinds_of(place)
    assert read_place(token, query, *kinds) == place

    for other in ((*query, "more"), query[1:], tuple(f"{each}x" for each in query)):
        with pytest.raises(InvalidRequest):
            read_place(token, other, *kinds)


@given(token=st.text(min_size=1, max_size=60))
def test_any_other_text_is_refused(token: str) -> None:
    """Whatever somebody makes up is INVALID_FIELD, and never a fault."""
    with pytest.raises(InvalidRequest) as caught:
        read_place(token, QUERY, str)
    assert [each.field for each in caught.value.violations] == ["page_token"]


@given(place=PLACES, at=st.integers(0), sign=st.sampled_from("AZaz09-_"))
def test_a_token_that_was_altered_is_refused(place: list[Any], at: int, sign: str) -> None:
    """One sign of it changed: nonsense, or still the same place; it never leads elsewhere."""
    token = write_token(QUERY, place)
    altered = token[: at % len(token)] + sign + token[at % len(token) + 1 :]
    try:
        found = read_place(altered, QUERY, *kinds_of(place))
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
def test_a_well_made_token_of_another_shape_is_refused(place: list[Any]) -> None:
    """Whoever knows how tokens are made cannot put anything but texts and numbers into a query."""
    with pytest.raises(InvalidRequest):
        read_place(write_token(QUERY, place), QUERY, str, int)


def test_no_token_is_the_first_page() -> None:
    """Empty asks for the beginning."""
    assert read_place("", QUERY, str) is None


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01T00:00:00", "0001-01-01T00:00:00+23:59", "2026"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    """A time in a token is checked as the rest of it."""
    with pytest.raises(InvalidRequest):
        read_time(text)


def test_a_time_is_read_in_utc() -> None:
    """As it was written."""
    assert read_time("2026-08-22T14:00:00.123000+02:00") == datetime(2026, 8, 22, 12, 0, 0, 123_000, tzinfo=UTC)


@pytest.mark.parametrize(("asked", "size"), [(0, 50), (1, 1), (500, 500), (501, 500), (2**31 - 1, 500)])
def test_page_sizes_have_a_default_and_a_limit(asked: int, size: int) -> None:
    """0 is the default; too large is cut."""
    assert page_size(asked, default=50) == size


def test_a_negative_page_size_is_refused() -> None:
    """Less than nothing is no page."""
    with pytest.raises(InvalidRequest):
        page_size(-1, default=50)
