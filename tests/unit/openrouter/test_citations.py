"""Citations of an answer: what is retained of a provider's annotations, and within which bounds."""

import json
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.citations import (
    MAX_BYTES,
    MAX_CITATIONS,
    Citation,
    CitationCollector,
    citations_from_text,
    citations_to_text,
)


def annotation(url: Any = "https://a.example/", **fields: Any) -> dict[str, Any]:
    """Return an annotation of the chat API."""
    return {"type": "url_citation", "url_citation": {"url": url, **fields}}


def collected(*annotations: Any) -> list[Citation]:
    """Return what is retained of the annotations of one chunk."""
    return added(CitationCollector(), list(annotations))


def added(collector: CitationCollector, annotations: Any) -> list[Citation]:
    """Return what a chunk's annotations add."""
    collector.add(annotations)
    return list(collector.take())


def test_citation_has_what_the_provider_reports() -> None:
    """In the nested form of the chat API and in the plain one of the Responses API; a range of 0 to 0 is none."""
    fields = {"title": "T", "content": "one\ntwo", "start_index": 3, "end_index": 9}
    plain = {"type": "url_citation", "url": "https://a.example/", **fields}
    expected = Citation(url="https://a.example/", title="T", content="one\ntwo", start=3, end=9)

    assert collected(annotation(**fields)) == collected(plain) == [expected]
    assert collected(annotation(start_index=0, end_index=0)) == [Citation(url="https://a.example/")]


@pytest.mark.parametrize(
    "hostile",
    [
        None,
        1,
        "url_citation",
        [],
        {"type": "file", "file": {"hash": "h"}},
        {"type": "url_citation"},
        annotation(None),
        annotation(7),
        annotation(""),
        annotation("javascript:alert(1)"),
        annotation("data:text/html,a"),
        annotation("ftp://a.example/"),
        annotation("https://a.example/" + "a" * 2048),
        annotation("https://a.example\u202e/moc.knab"),
        annotation("https://a.exam\0ple/"),
        annotation("https://a.example\n.evil.example/"),
        annotation("https://a.example/\ud800"),
        annotation("\u202ehttps://a.example/"),
    ],
)
def test_what_is_no_web_page_is_dropped(hostile: Any) -> None:
    """Other kinds, other schemes, and addresses that are too long or not printable: a part would be another one."""
    assert collected(hostile, annotation("https://b.example/")) == [Citation(url="https://b.example/")]


def test_annotations_that_are_no_list_are_none() -> None:
    """Nothing is raised."""
    assert [added(CitationCollector(), each) for each in (None, "a", {"url": "https://a.example/"}, 1)] == [[]] * 4


def test_texts_are_cut_and_cleaned() -> None:
    """No control characters, lone surrogates or marks of direction; white space of a title is spaces."""
    (found,) = collected(
        annotation(
            " https://a.example/x\n",
            title="a\0b\u202ec\ud800d\ne\u00a0f" + "t" * 999,
            content="x\r\n\ty\x1b[31m" + "ü" * 9999,
        )
    )

    assert found.url == "https://a.example/x"
    assert found.title == ("abcd e f" + "t" * 999)[: len(found.title)]
    assert len(found.title) <= 300
    assert found.content.startswith("x \n\ty[31müü")
    assert len(found.content) <= 1000
    json.dumps([found.title, found.content], ensure_ascii=False).encode()


@pytest.mark.parametrize("index", [-1, 2**31, "3", 1.5, True, None, Decimal("2.5")])
def test_position_that_is_none_is_not_reported(index: Any) -> None:
    """The whole range is unknown then."""
    assert collected(annotation(start_index=1, end_index=index)) == [Citation(url="https://a.example/")]


def test_citation_comes_once() -> None:
    """A provider may repeat them at the end; another part of the answer is another citation."""
    collector = CitationCollector()

    assert len(added(collector, [annotation(), annotation(), annotation(start_index=1, end_index=2)])) == 2
    assert added(collector, [annotation(), annotation(start_index=1, end_index=2)]) == []


def test_number_and_size_are_bounded() -> None:
    """Over all chunks of an answer."""
    many, large = CitationCollector(), CitationCollector()
    found = [each for number in range(900) for each in added(many, [annotation(f"https://a.example/{number}")])]
    content = "ü" * 1000
    sizes = [
        each.size
        for number in range(900)
        for each in added(large, [annotation(f"https://a.example/{number}", content=content)])
    ]

    assert len(found) == MAX_CITATIONS
    assert sum(sizes) <= MAX_BYTES < sum(sizes) + max(sizes)
    assert all(len(citations_to_text([each]).encode()) <= each.size for each in found)


def test_citations_survive_their_text() -> None:
    """What a later build adds to one is ignored."""
    first = Citation(url="https://a.example/", title="ü", content='"', start=1, end=2)
    found = [first, Citation(url="http://b.example")]
    text = citations_to_text(found)

    assert list(citations_from_text(text)) == found
    later = json.dumps([[*row, {"later": 1}] for row in json.loads(text)])
    assert list(citations_from_text(later)) == found
