"""The text of HTML documents: what a person reads, in linear time for any document."""

import asyncio
import time

import pytest

from godoty_service.agents.tools.html_text import html_text

_ALL = 10_000_000


async def text_of(document: str) -> str:
    """Return the whole text of a document."""
    return await html_text(document, max_chars=_ALL)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("plain", "plain"),
        ("<p>One\n  <b>two</b>three</p><p>four</p>", "One twothree\n\nfour"),
        ("<title>Prices</title><h1>Our prices</h1><h2>Now</h2>5 &euro;", "Prices\n\n# Our prices\n\n## Now\n\n5 €"),
        ("<ul><li>one<li><p>two</p></ul>after", "- one\n\n- two\n\nafter"),
        ("<ul><li></li></ul>after", "after"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<div>a</div><div>b</div>", "a\nb"),
        ("<table><tr><th>a<th>b<tr><td>1</td><td> 2 </td></table>", "a | b\n1 | 2"),
        ("<pre>a\n  b</pre>c  d", "a\n  b\n\nc d"),
        ("a <!-- b > --> c <!doctype html> d <?xml ?> e", "a c d e"),
        ("a<script>if (1 < 2) '</p>'</SCRIPT >b<style>p {}</style>c", "abc"),
        ("a<script>b", "a"),
        ("a<!-- b", "a"),
        ("a<b c='", "a"),
        ("a<svg><text>b</text></svg>c<svg/>d<svg>e", "acde"),
        ("a<template><p>b</p></template>c", "ac"),
        ("1 < 2 <3 & 4 &amp;lt; 5 &#x41;&#66; &nbsp;x</>", "1 < 2 <3 & 4 &lt; 5 AB x</>"),
        ("&#" + "1" * 5000 + ";", "&#" + "1" * 5000 + ";"),
        ("<p title='a > b' data-x=\"c > d\" e = 'f'>text", "text"),
        ('<p title="a>text', "text"),
        ("<p \"'>text", "text"),
        ("<P>a</P><DIV>b", "a\n\nb"),
        ("<sc<script>b</script>c", "bc"),
    ],
)
async def test_text_of_a_document(document: str, text: str) -> None:
    """Tags end lines and paragraphs as a browser shows them; what is no text is left out."""
    assert await text_of(document) == text


@pytest.mark.parametrize(
    ("attributes", "shown"),
    [
        ('href="https://example.com/a?b=1&amp;c=2"', "[here](https://example.com/a?b=1&c=2)"),
        ("class=x href=/a", "[here](/a)"),
        ("href='a/b.html#part'", "[here](a/b.html#part)"),
        ('HREF = "//example.com"', "[here](//example.com)"),
        ('href="#part"', "here"),
        ('href="javascript:alert(1)"', "here"),
        ('href="mailto:a@example.com"', "here"),
        ('href="data:text/plain,a"', "here"),
        ('href="a b"', "here"),
        ('href="/' + "a" * 300 + '"', "here"),
        ('data-href="/a"', "here"),
        ('name="top"', "here"),
        ("", "here"),
    ],
)
async def test_link_has_its_target(attributes: str, shown: str) -> None:
    """An agent needs it to fetch the next page; what cannot be fetched is left out."""
    assert await text_of(f"<p>see <a {attributes}> here </a>, please") == f"see {shown} , please"


async def test_link_without_a_text_is_left_out() -> None:
    """As one around a picture; one that is not closed ends with the document or the next one."""
    assert await text_of('<a href="/a"><img src="b"></a>c') == "c"
    assert await text_of('<a href="/a">b<a href="/c">d') == "[b](/a)[d](/c)"


async def test_targets_of_many_links_are_left_out() -> None:
    """They would cost more than the text."""
    text = await text_of('<a href="/a">b</a> ' * 300)

    assert text.count("](/a)") == 200
    assert text.count("b") == 300


async def test_reading_ends_with_enough_text() -> None:
    """The rest of a document is not read."""
    text = await html_text("<p>12345" * 100_000, max_chars=20)

    assert text == "12345\n\n12345\n\n12345\n\n12345"


_SIZE = 256 * 1024
_HOSTILE = {
    "tags": "<b>",
    "open tags": "<b ",
    "open comments": "<!--",
    "comments": "<!---->",
    "declarations": "<!",
    "angles": "<",
    "ends": "</",
    "scripts": "<script>",
    "empty scripts": "<script></script>",
    "vectors": "<svg>",
    "vectors and templates": "<svg><template>",
    "quotes": "<a b='",
    "equals": "<a b=",
    "mixed quotes": "<a b='\"",
    "links": "<a href=",
    "many links": '<a href="/a">b',
    "spaces": "<a " + " " * 50,
    "references": "&amp;",
    "open references": "&a",
    "ampersands": "&",
    "numbers": "&#1",
    "words": "a ",
    "headings": "<h1>",
    "cells": "<td>a",
    "pre": "<pre>a\n",
    "long name": "<a" + "b" * 500,
}


@pytest.mark.parametrize("pattern", _HOSTILE.values(), ids=_HOSTILE)
async def test_hostile_document_does_not_block_the_loop(pattern: str) -> None:
    """No step takes long for any repetition: one of quadratic time would take seconds."""
    document = (pattern * (_SIZE // len(pattern) + 1))[:_SIZE]
    longest = await _longest_step(document)

    assert longest < 0.5, f"the event loop was blocked for {longest:.3f} s of CPU"


async def _longest_step(document: str) -> float:
    """Return the most CPU time of this thread between two turns of the event loop while a document is read."""
    longest, reading = 0.0, asyncio.ensure_future(text_of(document))
    while not reading.done():
        start = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - start)
    await reading
    return longest
