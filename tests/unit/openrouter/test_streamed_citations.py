"""Citations and fees in the chunks of an answer."""

from decimal import Decimal
from typing import Any

import pytest

from godoty_service.openrouter.decoding.stream_decoder import StreamDecoder
from tests.unit.openrouter.decoding import USAGE, RecordingListener, assert_balanced, chunk, decode


def cited(*urls: str) -> dict[str, Any]:
    """Return a delta with citations and an empty text, as recorded."""
    annotations = [{"type": "url_citation", "url_citation": {"url": url}} for url in urls]
    return {"role": "assistant", "content": "", "annotations": annotations}


def test_citations_come_in_order_and_once() -> None:
    """After the text that came before them, and not before any output, since a request without output is retried."""
    listener = RecordingListener()
    decoder = StreamDecoder(listener)
    decoder.add_chunks([chunk(cited("https://a.example/", "https://b.example/"))])
    assert (listener.pieces, decoder.has_output) == ([], False)
    events = decode(
        decoder,
        [chunk({"content": "x", "role": "assistant"})],
        [chunk({"content": "y"}), chunk(cited("https://c.example/", "https://a.example/"))],
        [chunk({}, finish="stop")],
        [chunk(cited("https://c.example/"))],
    )

    assert listener.pieces == [
        ("text", "x"),
        ("citation", "https://a.example/"),
        ("citation", "https://b.example/"),
        ("text", "y"),
        ("citation", "https://c.example/"),
    ]
    assert_balanced(events)


def test_text_and_citations_of_one_delta_are_both_received() -> None:
    """A delta with a text may have other fields, too."""
    listener = RecordingListener()
    decode(StreamDecoder(listener), [chunk({**cited("https://a.example/"), "content": "x", "reasoning": "r"})])

    assert listener.pieces == [("reasoning", "r"), ("text", "x"), ("citation", "https://a.example/")]


@pytest.mark.parametrize(
    ("pipeline", "cost"),
    [
        ([{"type": "plugin", "name": "web", "cost_usd": Decimal("0.007")}], Decimal("0.007")),
        ([{"name": "a", "cost_usd": Decimal("0.1")}, {"name": "b"}, {"name": "c", "cost_usd": 2}], Decimal("2.1")),
        ([{"name": "guard"}], None),
        ([{"name": "a", "cost_usd": Decimal("0.1")}, {"name": "b", "cost_usd": None}], None),
        ([{"name": "a", "cost_usd": -1}], None),
        ([{"name": "a", "cost_usd": Decimal("0.2")}, {"name": "b", "cost_usd": Decimal("-0.1")}], None),
        ([{"name": "a", "cost_usd": "0.1"}], None),
        ([{"name": "a", "cost_usd": Decimal(10**7)}], None),
        ([1, None, "a"], None),
        ([{"name": "a", "cost_usd": 1}] * 65, None),
        ({"name": "a"}, None),
        (None, None),
    ],
)
def test_fees_of_the_pipeline_are_part_of_the_usage(pipeline: Any, cost: Decimal | None) -> None:
    """Plugins are counted nowhere else; an unknown one makes the sum unknown."""
    decoder = StreamDecoder()
    body = chunk({}, finish="stop", usage=USAGE)
    decoder.add_chunks([{**body, "openrouter_metadata": {"strategy": "direct", "pipeline": pipeline}}])

    assert decoder.usage is not None
    assert (decoder.usage["cost"], decoder.usage.get("pipeline_cost")) == (Decimal("0.1"), cost)
