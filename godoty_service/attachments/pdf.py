"""Counts the pages of a PDF document without building any of its objects.

The count is a ceiling, because a page may cost a fee: the most of the page objects, of the references in lists of pages
and of the numbers of pages that the document states. Compressed streams are expanded piece by piece, within a bound;
only those that have objects are looked at.
"""

import re
import time
from collections.abc import Iterator
from typing import Final

from godoty_service.attachments.images import DamagedFile
from godoty_service.attachments.inflation import expanded

_BEGINNING: Final = 1024  # bytes in which the version stands
_END: Final = 4096  # bytes in which the end stands
_DICTIONARY: Final = 1024  # bytes around what is found in which the rest of its dictionary stands
_SLICE: Final = 1024 * 1024  # bytes that are searched at once
_OVERLAP: Final = 256  # bytes of two searches: longer than anything that is searched for, but for lists of pages
_PAGE: Final = re.compile(rb"/Type\s{0,32}/Page(?![A-Za-z0-9])")
_COUNT: Final = re.compile(rb"/Count\s{0,32}(\d{1,9})(?!\d)")
_DICTIONARY_PART: Final = re.compile(rb"<<|>>|endobj")
_KIDS_ELSEWHERE: Final = re.compile(rb"/Kids\s{1,32}\d{1,10}\s{1,16}\d{1,5}\s{1,16}R")
_REFERENCES: Final = re.compile(rb"\[(?:\s{0,16}\d{1,10}\s{1,16}\d{1,5}\s{1,16}R){1,65536}")
_KIDS: Final = re.compile(rb"/Kids\s{0,32}\[([^\]]{0,1048576})")
_REFERENCE: Final = re.compile(rb"\d\s{1,16}\d{1,5}\s{1,16}R")
_ESCAPED: Final = re.compile(rb"#([0-9A-Fa-f]{2})")
_OBJECTS: Final = re.compile(rb"/Type\s{0,32}/ObjStm(?![A-Za-z0-9])")
_STREAM: Final = re.compile(rb"(?<!end)stream\r?\n")
_MAX_STREAMS: Final = 50_000
_MAX_OBJECTS: Final = 64 * 1024 * 1024  # bytes of all streams of objects together
_MAX_EXPANDED: Final = 512 * 1024 * 1024  # bytes of all streams together
_SECONDS: Final = 5.0  # of CPU: a busy server finds no fault with a document for it


def is_pdf(data: bytes) -> bool:
    """Return whether a file begins as a PDF document does."""
    return b"%PDF-" in data[:_BEGINNING]


def count_pages(data: bytes) -> int:
    """Return a ceiling of the pages of a document.

    Raises:
        DamagedFile: It is incomplete, encrypted, has no page, or its parts expand too far or take too long.
    """
    if b"%%EOF" not in data[-_END:] or b"startxref" not in data[-_END:]:
        raise DamagedFile("it has no end of a PDF document.")
    pages = counted = references = 0
    lists, elsewhere = 0, False
    deadline = time.thread_time() + _SECONDS
    for part in _parts(data, deadline=deadline):
        _check_time(deadline)
        text = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), part) if b"#" in part else part
        if b"/Encrypt" in text:
            raise DamagedFile("it is encrypted.")
        pages += len(_PAGE.findall(text))
        counted = max([counted, *_counts(text)])
        references += sum(len(_REFERENCE.findall(kids)) for kids in _KIDS.findall(text))
        elsewhere = elsewhere or _KIDS_ELSEWHERE.search(text) is not None
        lists += sum(len(_REFERENCE.findall(each)) for each in _REFERENCES.findall(text))
    if not pages:
        raise DamagedFile("it has no page.")
    return max(pages, counted, references, lists if elsewhere else 0)


def _counts(text: bytes) -> Iterator[int]:
    """Yield the numbers of pages that a part states; outlines have a number of the same name, of their entries."""
    for found in _COUNT.finditer(text):
        before = text[max(0, found.start() - _DICTIONARY) : found.start()]
        end = _DICTIONARY_PART.search(text, found.end(), found.end() + _DICTIONARY)
        around = before[max(before.rfind(b"<<"), 0) :] + text[found.end() : end.start() if end else found.end()]
        if b"/Kids" in around or b"/First" not in around:
            yield int(found[1])


def _parts(data: bytes, *, deadline: float) -> Iterator[bytes]:
    """Yield the file in slices, then what its streams of objects expand to, in slices.

    Raises:
        DamagedFile: The streams are too many, expand too far or take too long.
    """
    yield from _slices(data)
    total = total_objects = 0
    view = memoryview(data)
    for index, (begun, start) in enumerate(_streams(data)):
        before = data[max(0, begun - _DICTIONARY) : begun]
        has_objects = _OBJECTS.search(before, before.rfind(b"obj") + 3) is not None
        if index >= _MAX_STREAMS:
            raise DamagedFile("it has too many streams.")
        objects = bytearray()
        for piece in expanded([view[start:]]):
            total += len(piece)
            total_objects += len(piece) if has_objects else 0
            if total > _MAX_EXPANDED or total_objects > _MAX_OBJECTS:
                raise DamagedFile("its streams expand to more than 512 MiB, or those of objects to more than 64 MiB.")
            _check_time(deadline)
            if has_objects:
                objects += piece
                if len(objects) >= _SLICE:
                    yield bytes(objects)
                    del objects[:-_OVERLAP]
        if objects:
            yield bytes(objects)


def _check_time(deadline: float) -> None:
    if time.thread_time() > deadline:
        raise DamagedFile("its parts take too long to look at.")


def _streams(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each stream's keyword begins, and where its data do; the file is searched in windows."""
    position = 0
    while position < len(data):
        found = _STREAM.search(data, position, position + _SLICE)
        if found is not None:
            yield found.start(), found.end()
        position = found.end() if found is not None else position + _SLICE - _OVERLAP


def _slices(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _SLICE):
        yield data[max(0, start - _OVERLAP) : start + _SLICE]
