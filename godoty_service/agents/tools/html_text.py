"""The text of an HTML document: what a person reads of it, for a model that pays for each token.

Scripts, styles, pictures and attributes are left out; headings, list items and links are written as Markdown does.
Documents come from anywhere, so the time is linear in their size for any content, and the event loop gets a turn
after every few milliseconds. Python's html.parser is not taken: in releases that the service runs on (3.11.7) it needs
quadratic time for some documents.
"""

import asyncio
import html
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_SLICE = 8_192  # characters of text that are converted at once
_CUT_ENTITY = 32  # characters at the end of a slice that may be the beginning of a character reference
_TURN = 1_000  # units of work after which the event loop gets a turn: a token, or 64 characters of text
_UNIT = 64
_MAX_LINKS = 200  # whose target is shown
_MAX_HREF = 300  # characters; longer ones are tracking, or data
_MAX_ATTRIBUTES = 4_096  # characters in which a target is looked for

# A tag to its end. An equals sign may be followed by a quoted value, in which ">" ends nothing. All repetitions are
# possessive: a tag that does not end is given up once.
_TAG: Final = re.compile(r"""<(/?)([a-zA-Z][^\s/>]*+)((?:[^>"'=]++|=\s*+(?:"[^"]*+"|'[^']*+')?|["'])*+)>""")
_TAG_BEGIN: Final = re.compile(r"</?[a-zA-Z]")
_HREF: Final = re.compile(r"""(?:^|[\s"'/])href\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s"'>]++))""", re.IGNORECASE)
# An absolute URL of HTTP or a relative one; not a mere fragment.
_TARGET: Final = re.compile(r"""(?:https?://|(?![a-z][a-z0-9+.-]*+:))[^\s()<>"#][^\s()<>"]*+""", re.IGNORECASE)
_ENDS: Final = {
    name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE)
    for name in ("script", "style", "iframe", "noembed", "noframes", "svg", "template", "math", "object", "canvas")
}
_RAW: Final = frozenset({"script", "style", "iframe", "noembed", "noframes"})  # without an end, the rest is theirs
_MARKS: Final = {"li": "- "} | {f"h{level}": f"{'#' * level} " for level in range(1, 7)}
_BLOCKS: Final = frozenset(
    {"address", "article", "aside", "blockquote", "body", "caption", "details", "dialog", "dl", "fieldset"}
    | {
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hr",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "table",
    }
    | {"title", "ul"}
)
_LINES: Final = frozenset({"br", "dd", "div", "dt", "head", "option", "tbody", "tfoot", "thead", "tr"})
_CELLS: Final = frozenset({"td", "th"})
_NONE, _SPACE, _LINE, _PARAGRAPH = range(4)
_GAPS: Final = ("", " ", "\n", "\n\n")


class _Token(NamedTuple):
    """A piece of a document: a text, or a tag.

    Attributes:
        text: The text; of a tag, its attributes.
        tag: The tag's name in lower case; empty: it is a text.
        closes: Whether it is an end tag.
    """

    text: str
    tag: str = ""
    closes: bool = False


async def html_text(document: str, *, max_chars: int) -> str:
    """Return the text of a document.

    Args:
        document: The document, which may be cut.
        max_chars: Characters of text after which the rest of the document is not read.
    """
    writer, units = _Writer(), 0
    for token in _Scanner(document).tokens():
        writer.write(token)
        if writer.size >= max_chars:
            break
        units += 1 + (0 if token.tag else len(token.text) // _UNIT)
        if units >= _TURN:
            units = 0
            await asyncio.sleep(0)
    return writer.text()


class _Scanner:
    """Reads the texts and tags of a document, without comments and elements whose content is no text."""

    def __init__(self, document: str) -> None:
        self._document = document
        self._position = 0
        self._endless: set[str] = set()  # elements of which no end tag follows

    def tokens(self) -> Iterator[_Token]:
        """Yield them in their order."""
        document = self._document
        while (start := document.find("<", self._position)) >= 0:
            yield from _slices(document, self._position, start)
            if (token := self._markup(start)) is not None:
                yield token
        yield from _slices(document, self._position, len(document))

    def _markup(self, start: int) -> _Token | None:
        """Read what a "<" begins: a tag, a comment, or nothing but this character."""
        document = self._document
        if document[start + 1 : start + 2] in ("!", "?"):
            is_comment = document.startswith("<!--", start)
            end = document.find("-->" if is_comment else ">", start + 2)
            self._position = len(document) if end < 0 else end + (3 if is_comment else 1)
            return None
        if (tag := _TAG.match(document, start)) is not None:
            return self._tag(tag)
        if _TAG_BEGIN.match(document, start):  # it does not end
            self._position = len(document)
            return None
        self._position = start + 1
        return _Token("<")

    def _tag(self, found: re.Match[str]) -> _Token:
        """Read a tag, and skip the content of its element if that is no text."""
        closes, name, attributes = bool(found[1]), found[2].lower(), found[3]
        self._position = found.end()
        if name in _ENDS and name not in self._endless and not closes and not attributes.endswith("/"):
            end_tag = _ENDS[name].search(self._document, self._position)
            if end_tag is not None:
                self._position = end_tag.start()
            elif name in _RAW:
                self._position = len(self._document)
            else:
                self._endless.add(name)
        return _Token(attributes, name, closes)


def _slices(document: str, start: int, end: int) -> Iterator[_Token]:
    """Yield a text in slices, none of which ends within a character reference."""
    while start < end:
        stop = min(start + _SLICE, end)
        if stop < end and (reference := document.rfind("&", stop - _CUT_ENTITY, stop)) > start:
            stop = reference
        yield _Token(document[start:stop])
        start = stop


class _Writer:
    """Writes texts, and between them the white space that their tags ask for.

    Attributes:
        size: The characters until now.
    """

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[str] = []
        self._gap = _NONE
        self._mark = ""  # of a heading, an item or a cell: before the next text
        self._href = ""  # of the link that is open
        self._linked = False  # the link has a text already
        self._links = 0
        self._verbatim = False  # white space is kept

    def text(self) -> str:
        """Return what was written."""
        self._end_link()
        return "".join(self._parts)

    def write(self, token: _Token) -> None:
        """Write a piece."""
        if not token.tag:
            self._write_text(_unescaped(token.text))
        elif token.tag == "a":
            self._end_link()
            self._href = _target(token.text) if not token.closes and self._links < _MAX_LINKS else ""
        elif token.tag == "pre":
            self._verbatim = not token.closes
            self._leave(_PARAGRAPH)
        elif token.tag in _MARKS:
            self._leave(_LINE if token.tag == "li" else _PARAGRAPH, mark="" if token.closes else _MARKS[token.tag])
        elif token.tag in _BLOCKS:
            self._leave(_PARAGRAPH)
        elif token.tag in _LINES:
            self._leave(_LINE)
        elif token.tag in _CELLS:
            self._leave(_SPACE, mark=None if token.closes or self._gap > _SPACE else "| ")

    def _leave(self, gap: int, *, mark: str | None = None) -> None:
        """Leave a gap before the next text, which begins with a mark; None: with the one that is due already."""
        self._gap = max(self._gap, gap)
        if mark is not None:
            self._mark = mark

    def _write_text(self, text: str) -> None:
        if self._verbatim:
            if text:
                self._append(text)
            return
        words = " ".join(text.split())
        if not words:
            self._gap = max(self._gap, _SPACE if text else _NONE)
            return
        if text[0].isspace():
            self._gap = max(self._gap, _SPACE)
        self._append(words)
        self._gap = _SPACE if text[-1].isspace() else _NONE

    def _append(self, text: str) -> None:
        opening = ""
        if self._href and not self._linked:
            self._linked, opening = True, "["
        before = _GAPS[self._gap] if self._parts else ""
        self._gap = _NONE
        self._add(f"{before}{self._mark}{opening}{text}")
        self._mark = ""

    def _end_link(self) -> None:
        """End the link that is open; its target is shown if it has a text."""
        if self._linked:
            self._links += 1
            self._add(f"]({self._href})")
        self._linked = False
        self._href = ""

    def _add(self, text: str) -> None:
        self._parts.append(text)
        self.size += len(text)


def _target(attributes: str) -> str:
    """Return the target of a link; empty: it has none that can be fetched."""
    found = _HREF.search(attributes[:_MAX_ATTRIBUTES])
    if found is None:
        return ""
    href = _unescaped(found[1] or found[2] or found[3] or "").strip()
    return href if len(href) <= _MAX_HREF and _TARGET.fullmatch(href) else ""


def _unescaped(text: str) -> str:
    """Return a text with characters in place of their references."""
    if "&" not in text:
        return text
    try:
        return html.unescape(text)
    except ValueError:  # the number of a character has more digits than Python reads
        return text
