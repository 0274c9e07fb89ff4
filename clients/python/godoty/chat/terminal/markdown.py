"""Formats a block of Markdown for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from rich import markdown
from rich.syntax import Syntax
from rich.text import Text

if TYPE_CHECKING:
    from markdown_it.token import Token
    from rich.console import Console, ConsoleOptions, RenderResult

# Nothing of an answer may be missing: HTML is text, and a definition of a reference too.
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("reference")


class _Heading(markdown.Heading):
    LEVEL_ALIGN = dict.fromkeys(markdown.Heading.LEVEL_ALIGN, "left")


class _CodeBlock(markdown.CodeBlock):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Syntax(
            str(self.text).rstrip(),
            self.lexer_name,
            theme=self.theme,
            word_wrap=True,
            padding=(0, 2),
            background_color="default",
        )


class BlockText(markdown.Markdown):
    """One block of an answer.

    Line ends in paragraphs remain, and addresses are shown: a link says where it leads.
    """

    elements = markdown.Markdown.elements | {
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
    }

    def __init__(self, text: str) -> None:
        super().__init__("", code_theme="ansi_dark", hyperlinks=False)
        self.markup = text
        self.parsed = _PARSER.parse(text)
        for token in self.parsed:
            if token.children:
                token.children = _simplified(token.children)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        try:
            yield from list(super().__rich_console__(console, options))
        except Exception:  # noqa: BLE001 - no text of a model may end the chat
            yield Text(self.markup)


def _simplified(tokens: list[Token]) -> list[Token]:
    """Return the tokens of a paragraph with line ends, images as text, and addresses that are not doubled."""
    simple: list[Token] = []
    for token in tokens:
        if token.type == "softbreak":
            token.type = "hardbreak"
        elif token.type == "image":
            token.type, token.tag = "text", ""
            token.content = f"[image: {token.content}] ({token.attrs.get('src', '')})"
            token.children = None
        elif token.type == "link_close" and _is_plain_address(simple):
            del simple[-2]
            continue
        simple.append(token)
    return simple


def _is_plain_address(tokens: list[Token]) -> bool:
    """Return whether the last tokens are a link whose text is its address."""
    if len(tokens) < 2:  # noqa: PLR2004 - the link and its text
        return False
    link, text = tokens[-2:]
    return link.type == "link_open" and text.type == "text" and link.attrs.get("href") == text.content
