"""Images and documents, made of nothing but their formats."""

import os
import struct
import zlib
from functools import lru_cache


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, *, depth: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    """Return the beginning of a PNG."""
    return b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    )


def png(width: int = 8, height: int = 8, *, size: int = 0) -> bytes:
    """Return an image, different each time.

    Args:
        width: Pixels.
        height: Pixels.
        size: Bytes that it has at least.
    """
    pixels = _pixels(width, height)
    mark = chunk(b"prVt", os.urandom(max(16, size)))
    return png_header(width, height) + mark + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@lru_cache
def _pixels(width: int, height: int) -> bytes:
    return zlib.compress(b"\0" * (height * (1 + 3 * width)))


def png_bomb() -> bytes:
    """Return an image of 8 x 8 pixels whose data expand to 64 MiB."""
    return png_header(8, 8) + chunk(b"IDAT", zlib.compress(b"\0" * (64 * 1024 * 1024))) + chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    """Return an image with a profile before its size."""
    profile = b"\xff\xe2" + struct.pack(">H", 2002) + b"\xff\xc0" * 1000
    frame = b"\xff\xc2" + struct.pack(">HBHHB", 17, 8, height, width, 3) + b"\0" * 9
    return b"\xff\xd8" + b"\xff\xe0" + struct.pack(">H", 16) + b"JFIF\0" + b"\0" * 9 + profile + frame + b"\xff\xd9"


def gif(width: int, height: int) -> bytes:
    """Return an image."""
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0;"


def webp(width: int, height: int, kind: bytes = b"VP8X") -> bytes:
    """Return an image of one of the kinds `VP8X`, `VP8L` and `VP8 `."""
    if kind == b"VP8X":
        body = b"\0" * 4 + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == b"VP8L":
        body = b"\x2f" + (width - 1 | (height - 1) << 14).to_bytes(4, "little") + b"\0" * 5
    else:
        body = b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)
    riff = b"WEBP" + kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(riff)) + riff


def pdf(pages: int = 1, *, compressed: bool = False, more: bytes = b"") -> bytes:
    """Return a document.

    Args:
        pages: Its pages.
        compressed: They stand in a compressed stream of objects.
        more: Further objects.
    """
    kids = b" ".join(b"%d 0 R" % (number + 3) for number in range(pages))
    objects = b"<</Type/Catalog/Pages 2 0 R>> <</Type/Pages/Kids[%b]/Count %d>> " % (kids, pages)
    objects += b"<</Type/Page/Parent 2 0 R>> " * pages
    if compressed:
        packed = zlib.compress(objects)
        body = b"9 0 obj\n<</Type/ObjStm/Filter/FlateDecode/Length %d>>\nstream\n%b\nendstream\nendobj\n"
        body %= (len(packed), packed)
    else:
        body = objects
    mark = b"%%" + os.urandom(8).hex().encode() + b"\n"
    return b"%PDF-1.7\n" + mark + body + more + b"\nstartxref\n9\n%%EOF\n"


def pdf_stream(data: bytes) -> bytes:
    """Return an object with a compressed stream."""
    packed = zlib.compress(data)
    return b"8 0 obj\n<</Filter/FlateDecode/Length %d>>\nstream\n%b\nendstream\nendobj\n" % (len(packed), packed)
