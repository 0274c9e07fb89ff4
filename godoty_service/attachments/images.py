"""Reads the type and the size of an image from its header. No pixel is decoded; the work is bounded by the file's size.

Only compressed data of PNG files is expanded, within a bound and without being kept: a file whose data are longer than
its header says, or whose texts expand to megabytes, is made to exhaust the one who reads it.
"""

import struct
from dataclasses import dataclass
from typing import Final

from godoty_service.attachments.inflation import expanded_size

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS: Final = 65_536  # of a PNG; IDAT chunks of 8 KiB in 20 MiB are 2,560
_MAX_SEGMENTS: Final = 16_384  # of a JPEG before its size
_MAX_TEXT: Final = 4 * 1024 * 1024  # bytes to which all compressed texts of a PNG together may expand
_TEXT_HEAD: Final = 4096  # bytes in which the names before a compressed text stand
_COMPRESSED: Final = (b"zTXt", b"iCCP", b"iTXt")
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its type of colour
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_SOF: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})  # markers of a JPEG without a segment


class DamagedFile(ValueError):
    """A file has the beginning of a type, and is none. The text says what is wrong, for the caller."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The type of an image, and its size in pixels."""

    media_type: str
    width: int
    height: int


def read_image(data: bytes, *, max_pixels: int) -> ImageHeader | None:
    """Return the header of an image; None: the bytes are no PNG, JPEG, WebP or GIF.

    Args:
        data: The whole file.
        max_pixels: Pixels above which nothing more than the header is looked at.

    Raises:
        DamagedFile: The header is incomplete, or contradicts the file.
    """
    if data.startswith(_PNG):
        return _png(data, max_pixels)
    if data.startswith(b"\xff\xd8\xff"):
        return ImageHeader("image/jpeg", *_jpeg_size(data))
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return ImageHeader("image/gif", *_sides(data, 6, "<HH"))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ImageHeader("image/webp", *_webp_size(data))
    return None


def _sides(data: bytes, offset: int, form: str) -> tuple[int, int]:
    """Return a width and a height at a place of a file.

    Raises:
        DamagedFile: The file ends before, or one of them is 0.
    """
    try:
        width, height = struct.unpack_from(form, data, offset)
    except struct.error:
        raise DamagedFile("it ends within its header.") from None
    if not width or not height:
        raise DamagedFile("its header has no width or no height.")
    return int(width), int(height)


def _png(data: bytes, max_pixels: int) -> ImageHeader:
    if data[8:16] != b"\x00\x00\x00\rIHDR" or len(data) < 33:  # noqa: PLR2004 - the end of the first chunk
        raise DamagedFile("its header is not that of a PNG.")
    width, height = _sides(data, 16, ">II")
    depth, colour, _, _, interlaced = data[24:29]
    if colour not in _CHANNELS or depth not in (1, 2, 4, 8, 16) or interlaced > 1:
        raise DamagedFile("its header has a type of colour that PNG does not have.")
    if width * height <= max_pixels:
        bits = depth * _CHANNELS[colour]
        _check_png_chunks(data, _raw_bytes(width, height, bits, interlaced=bool(interlaced)))
    return ImageHeader("image/png", width, height)


def _raw_bytes(width: int, height: int, bits: int, *, interlaced: bool) -> int:
    """Return the bytes that the pixels of a PNG have before compression, at most."""
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for x, y, dx, dy in passes:
        columns, rows = (width - x + dx - 1) // dx, (height - y + dy - 1) // dy
        total += rows * (1 + (columns * bits + 7) // 8) if columns > 0 else 0
    return total


def _check_png_chunks(data: bytes, raw_bytes: int) -> None:
    """Check that a PNG is complete, and that no compressed data in it expand beyond what they may.

    Raises:
        DamagedFile: It is not, or some do.
    """
    view, offset, text_bytes = memoryview(data), 33, 0
    pixels: list[memoryview] = []
    for _ in range(_MAX_CHUNKS):
        if offset + 12 > len(data):
            raise DamagedFile("it ends before the image does.")
        (length,) = struct.unpack_from(">I", data, offset)
        kind, start = data[offset + 4 : offset + 8], offset + 8
        offset = start + length + 4
        if offset > len(data):
            raise DamagedFile("it ends before the image does.")
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            pixels.append(view[start : start + length])
        elif kind in _COMPRESSED:
            text_bytes += expanded_size([_compressed_text(kind, view[start : start + length])], _MAX_TEXT)
            if text_bytes > _MAX_TEXT:
                raise DamagedFile("the texts in it expand to more than 4 MiB.")
    else:
        raise DamagedFile("it has too many parts.")
    if not pixels:
        raise DamagedFile("it has no pixels.")
    if expanded_size(pixels, raw_bytes) > raw_bytes:
        raise DamagedFile("its data expand to more pixels than its header says.")


def _compressed_text(kind: bytes, body: memoryview) -> memoryview | bytes:
    """Return the compressed part of a chunk with a text or a profile, if there is one."""
    head = bytes(body[:_TEXT_HEAD])
    end = head.find(b"\0") + 1  # of the name
    if kind != b"iTXt":
        return body[end + 1 :] if end else b""
    language = head.find(b"\0", end + 2) + 1
    translated = head.find(b"\0", language) + 1 if language else 0
    return body[translated:] if end and translated and head[end : end + 1] == b"\x01" else b""


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Return the size of a JPEG, from the first frame header."""
    offset = 2
    for _ in range(_MAX_SEGMENTS):
        if offset + 4 > len(data) or data[offset] != 0xFF:  # noqa: PLR2004 - every marker begins with it
            break
        marker = data[offset + 1]
        if marker in _ALONE or marker == 0xFF:  # noqa: PLR2004 - a byte that fills
            offset += 1 if marker == 0xFF else 2  # noqa: PLR2004 - the same
            continue
        if marker in _SOF:
            height, width = _sides(data, offset + 5, ">HH")
            return width, height
        (length,) = struct.unpack_from(">H", data, offset + 2)
        if length < 2:  # noqa: PLR2004 - it counts its own two bytes
            break
        offset += 2 + length
    raise DamagedFile("it has no JPEG header with a size.")


def _webp_size(data: bytes) -> tuple[int, int]:
    if int.from_bytes(data[4:8], "little") + 8 > len(data) + 1:
        raise DamagedFile("it ends before the image does.")
    kind, body = data[12:16], data[20:30]
    if len(body) == 10:  # noqa: PLR2004 - what each kind has at least
        if kind == b"VP8X":
            return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
        if kind == b"VP8L" and body[0] == 0x2F:  # noqa: PLR2004 - its signature
            bits = int.from_bytes(body[1:5], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
            width, height = _sides(data, 26, "<HH")
            return (width & 0x3FFF) or 1, (height & 0x3FFF) or 1
    raise DamagedFile("its header is not that of a WebP image.")
