"""Citations of an answer: the web pages that a provider's search gave it. Parsed, bounded and cleaned. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

MAX_CITATIONS = 100  # of one answer
MAX_BYTES = 128 * 1024  # of one answer's citations together, counted as `Citation.size`
_MAX_URL = 2048  # characters; a part of a longer address would be another one
_MAX_TITLE = 300  # characters
_MAX_CONTENT = 1000  # characters
_MAX_INDEX = 2**31 - 1
_MAX_PIECES = 1000  # annotations of one chunk that are looked at
_SCHEMES = ("https://", "http://")
_BREAKS = frozenset("\n\t")
_OVERHEAD = 64  # bytes of a citation beside its texts
_UTF8 = 4  # maximum bytes of a character


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A web page that an answer cites.

    Attributes:
        url: The address, of http or https.
        title: The title of the page; empty: not reported.
        content: The part of the page that the model read; empty: not reported.
        start: Where the part of the answer's text that it supports begins, as the provider counts characters.
        end: Where it ends; 0: the provider does not say which part it supports.
    """

    url: str
    title: str = ""
    content: str = ""
    start: int = 0
    end: int = 0

    @property
    def size(self) -> int:
        """The bytes that are counted for it: at most those of its UTF-8."""
        return _OVERHEAD + sum(map(_byte_length, (self.url, self.title, self.content)))


class CitationCollector:
    """Collects the citations of one answer: each once, within the bounds."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, int, int]] = set()
        self._size = 0
        self._found: list[Citation] = []

    def add(self, annotations: Any) -> None:
        """Add the new citations of a chunk's annotations; those of other kinds or beyond the bounds are dropped."""
        if not isinstance(annotations, list):
            return
        self._found += [
            citation
            for each in annotations[:_MAX_PIECES]
            if len(self._seen) < MAX_CITATIONS and (citation := _parse(each)) is not None and self._is_new(citation)
        ]

    def take(self) -> tuple[Citation, ...]:
        """Return the citations that were added since this was called last."""
        found, self._found = tuple(self._found), []
        return found

    def _is_new(self, citation: Citation) -> bool:
        key = (citation.url, citation.start, citation.end)
        if key in self._seen or self._size + citation.size > MAX_BYTES:
            return False
        self._seen.add(key)
        self._size += citation.size
        return True


def citations_to_text(citations: Sequence[Citation]) -> str:
    """Encode citations as JSON text, as the database stores them."""
    rows = [[each.url, each.title, each.content, each.start, each.end] for each in citations]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def citations_from_text(text: str) -> tuple[Citation, ...]:
    """Decode citations; what a later build has added to one is ignored."""
    return tuple(
        Citation(url=url, title=title, content=content, start=start, end=end)
        for url, title, content, start, end, *_ in json.loads(text)
    )


def _parse(annotation: Any) -> Citation | None:
    """Parse an annotation of the chat API, or of the Responses API, whose fields are not nested; None: no citation."""
    if not isinstance(annotation, dict) or annotation.get("type") != "url_citation":
        return None
    nested = annotation.get("url_citation")
    fields = nested if isinstance(nested, dict) else annotation
    if (url := _address(fields.get("url"))) is None:
        return None
    start, end = _index(fields.get("start_index")), _index(fields.get("end_index"))
    known = start < end
    return Citation(
        url=url,
        title=_clean(fields.get("title"), _MAX_TITLE, breaks=frozenset()),
        content=_clean(fields.get("content"), _MAX_CONTENT, breaks=_BREAKS),
        start=start if known else 0,
        end=end if known else 0,
    )


def _address(value: Any) -> str | None:
    """Return an address of http or https as it is; None: there is none, or it has what would have to be removed."""
    if not isinstance(value, str):
        return None
    url = value[: _MAX_URL + 1].strip()
    return url if len(value) <= _MAX_URL and url.isprintable() and url.lower().startswith(_SCHEMES) else None


def _clean(value: Any, longest: int, *, breaks: frozenset[str]) -> str:
    """Return a text without control characters, lone surrogates and marks of direction, cut to a length.

    Args:
        value: The text; any other value is an empty one.
        longest: The length, in characters.
        breaks: White space that is retained; other white space becomes a space.
    """
    if not isinstance(value, str):
        return ""
    text = value[:longest]
    if text.isprintable():
        return text.strip()
    return "".join(map(partial(_clean_character, breaks=breaks), text)).strip()


def _clean_character(character: str, *, breaks: frozenset[str]) -> str:
    if character.isprintable() or character in breaks:
        return character
    return " " if character.isspace() else ""


def _index(value: Any) -> int:
    """Return a position in a text; 0 for any other value."""
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return value if 0 <= value <= _MAX_INDEX else 0


def _byte_length(text: str) -> int:
    return len(text) if text.isascii() else _UTF8 * len(text)
