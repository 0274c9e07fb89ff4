"""What bytes are an attachment: by their content, within bounds, without decoding a pixel."""

import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as some

from godoty_service.attachments.attachment import PDF, Attachment
from godoty_service.attachments.content import ContentLimits, inspect
from godoty_service.attachments.errors import AttachmentRejected
from tests.support.media import chunk, gif, jpeg, pdf, pdf_stream, png, png_bomb, png_header, webp

LIMITS = ContentLimits(size=10**8, pixels=40_000_000, pages=100)


def problem(data: bytes, limits: ContentLimits = LIMITS) -> str:
    """Return the problem of bytes that are refused."""
    with pytest.raises(AttachmentRejected) as caught:
        inspect("att_1", data, limits)
    return caught.value.metadata["problem"]


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (png(640, 480), "image/png"),
        (jpeg(640, 480), "image/jpeg"),
        (gif(640, 480), "image/gif"),
        *((webp(640, 480, kind), "image/webp") for kind in (b"VP8X", b"VP8L", b"VP8 ")),
    ],
)
def test_image_is_read_by_its_header(data: bytes, media_type: str) -> None:
    """Each format, with its size in pixels."""
    expected = Attachment(attachment_id="att_1", media_type=media_type, size=len(data), width=640, height=480)

    assert inspect("att_1", data, LIMITS) == expected


@pytest.mark.parametrize("compressed", [False, True])
def test_pages_of_a_document_are_counted(compressed: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    """Also those in compressed streams of objects."""
    data = pdf(7, compressed=compressed)

    assert inspect("att_1", data, LIMITS) == Attachment(attachment_id="att_1", media_type=PDF, size=len(data), pages=7)


def test_pages_are_counted_at_their_most() -> None:
    """A stated count, repeated references and names with escapes count as many pages as a reader could make of them."""
    assert inspect("att_1", pdf(2, more=b"<</Type/Pages/Count 90>>"), LIMITS).pages == 90
    assert inspect("att_1", pdf(2, more=b"<</Kids[" + b"3 0 R " * 50 + b"]>>"), LIMITS).pages == 52
    assert inspect("att_1", pdf(2, more=b"<</Type/P#61ge>>" * 5), LIMITS).pages == 7


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"hello", "type"),
        (b"", "type"),
        (b"PK\x03\x04" + b"\0" * 100, "type"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "type"),
        (b"\x7fELF" + png(), "type"),
        (b"BM" + b"\0" * 60, "type"),
        (b"%PDF-1.7\nnothing else", "damaged"),
        (b"%PDF-1.7\nstartxref\n0\n%%EOF", "damaged"),
        (pdf(1, more=b"<</Encrypt 5 0 R>>"), "damaged"),
        (pdf(101), "pages"),
        (pdf(101, compressed=True), "pages"),
        (png_header(10_000, 10_000) + chunk(b"IEND", b""), "pixels"),
        (jpeg(10_000, 10_000), "pixels"),
        (gif(65_535, 65_535), "pixels"),
        (webp(10_000, 10_000), "pixels"),
        (png_header(0, 8), "damaged"),
        (png_header(8, 8, colour=5), "damaged"),
        (png_header(8, 8), "damaged"),
        (png()[:-12], "damaged"),
        (png()[:20], "damaged"),
        (png_header(8, 8) + chunk(b"IEND", b""), "damaged"),
        (png_bomb(), "damaged"),
        (jpeg(8, 8)[:24], "damaged"),
        (b"\xff\xd8\xff\xd9", "damaged"),
        (gif(8, 8)[:8], "damaged"),
        (webp(8, 8)[:24], "damaged"),
        (b"RIFF\xff\xff\xff\x7fWEBPVP8X" + b"\0" * 20, "damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # the bytes differ between processes
)
def test_other_bytes_are_refused(data: bytes, expected: str) -> None:
    """A wrong type, damaged headers, too many pixels or pages, and data that expand beyond what they should."""
    assert problem(data) == expected


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP", b"iTXt"])
def test_text_that_expands_without_end_is_refused(kind: bytes) -> None:
    """A compressed text of an image, in each kind of chunk; one of ordinary size is taken."""
    before = {b"zTXt": b"note\0\0", b"iCCP": b"note\0\0", b"iTXt": b"note\0\x01\0en\0note\0"}[kind]
    whole = png()
    for size, refused in ((1000, False), (8 * 1024 * 1024, True)):
        data = whole[:33] + chunk(kind, before + zlib.compress(b"\0" * size)) + whole[33:]
        if refused:
            assert problem(data) == "damaged"
        else:
            assert inspect("att_1", data, LIMITS).width == 8


def test_interlaced_and_deep_images_are_taken() -> None:
    """As long as their data are no longer than their pixels are."""
    rows = b"".join(b"\0" * (1 + 8 * columns) for columns in (2, 2, 4, 4, 8, 8, 16) for _ in range(16))
    data = png_header(16, 16, depth=16, colour=6, interlaced=1)
    data += chunk(b"IDAT", zlib.compress(rows[:2000])) + chunk(b"IEND", b"")

    assert inspect("att_1", data, LIMITS).height == 16


def test_document_that_expands_without_end_is_refused() -> None:
    """Streams of a gigabyte in all, which are a megabyte in the file; and a stream of objects of 80 MiB."""
    bomb = pdf_stream(b"\0" * (64 * 1024 * 1024))
    objects = zlib.compress(b" " * (80 * 1024 * 1024))
    packed = b"7 0 obj\n<</Type/ObjStm/Filter/FlateDecode>>\nstream\n" + objects + b"\nendstream\nendobj\n"

    assert problem(pdf(1, more=bomb * 9)) == "damaged"
    assert problem(pdf(1, more=packed)) == "damaged"
    assert inspect("att_1", pdf(1, more=pdf_stream(b"\0" * (16 * 1024 * 1024))), LIMITS).pages == 1


def test_file_above_the_limit_is_refused() -> None:
    """By its size alone."""
    assert inspect("att_1", png(size=900), ContentLimits(size=2000)).size < 2000


@given(some.sampled_from([png(), jpeg(9, 9), gif(9, 9), webp(9, 9), pdf(2), pdf(2, compressed=True)]), some.data())
def test_any_mutation_is_taken_or_refused(data: bytes, draw: some.DataObject) -> None:
    """Never another error, and never more pixels or pages than the limits."""
    mutated = bytearray(data)
    for _ in range(draw.draw(some.integers(1, 6))):
        at = draw.draw(some.integers(0, len(mutated) - 1))
        mutated[at : at + draw.draw(some.integers(0, 3))] = draw.draw(some.binary(max_size=4))
    try:
        found = inspect("att_1", bytes(mutated), LIMITS)
    except AttachmentRejected:
        return

    assert found.width * found.height <= LIMITS.pixels
    assert found.pages <= LIMITS.pages


def test_many_chunks_and_segments_end() -> None:
    """A PNG of more chunks, and a JPEG of more segments, than any needs."""
    assert problem(png_header(8, 8) + chunk(b"prVt", b"") * 70_000) == "damaged"
    assert problem(b"\xff\xd8" + (b"\xff\xe1" + struct.pack(">H", 2)) * 20_000) == "damaged"


def test_entries_of_an_outline_are_no_pages() -> None:
    """Both are stated as `/Count`; that of a list of pages counts, wherever it stands in it."""
    outline = b"<</Type/Outlines/First 5 0 R/Last 6 0 R/Count 250>> <</Title(a)/Parent 5 0 R/Count 120/First 7 0 R>>"
    hidden = b"<</Type/Pages/First 5 0 R/Count 101/Kids[3 0 R]>>"

    assert inspect("att_1", pdf(10, more=outline), LIMITS).pages == 10
    assert problem(pdf(1, more=hidden)) == "pages"


def test_pages_of_a_list_that_stands_elsewhere_are_counted() -> None:
    """A list of pages may be an object of its own, and name a page more than once."""
    pages = b"<</Type/Pages/Kids 77 0 R/Count 1>> 77 0 obj [%b] endobj "

    assert inspect("att_1", pdf(1, more=pages % (b"3 0 R " * 90)), LIMITS).pages == 91
    assert problem(pdf(1, more=pages % (b"3 0 R " * 101))) == "pages"


def test_streams_of_objects_are_not_collected() -> None:
    """They are looked at as they expand: 40 MiB need no more memory than one."""
    packed = zlib.compress(b" " * (40 * 1024 * 1024))
    document = pdf(1, more=b"7 0 obj\n<</Type/ObjStm/Filter/FlateDecode>>\nstream\n" + packed + b"\nendstream\n")
    tracemalloc.start()
    try:
        assert inspect("att_1", document, LIMITS).pages == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 8 * 1024 * 1024
