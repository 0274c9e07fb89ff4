"""Measures what compressed data expand to, within a bound and in constant memory."""

import zlib
from collections.abc import Iterable, Iterator

_PIECE = 64 * 1024  # bytes, of what is read and of what is expanded


def expanded_size(pieces: Iterable[memoryview | bytes], limit: int) -> int:
    """Return the bytes that a zlib stream expands to, counted to a limit; broken data end where they break."""
    size = 0
    for part in expanded(pieces):
        size += len(part)
        if size > limit:
            break
    return size


def expanded(pieces: Iterable[memoryview | bytes]) -> Iterator[bytes]:
    """Yield what a zlib stream expands to, in pieces of at most 64 KiB; broken data end where they break."""
    decoder = zlib.decompressobj()
    try:
        for piece in pieces:
            for start in range(0, len(piece), _PIECE):
                rest: bytes | memoryview = piece[start : start + _PIECE]
                while rest and not decoder.eof:  # after the end of the stream the tail does not change
                    yield decoder.decompress(rest, _PIECE)
                    rest = decoder.unconsumed_tail
                if decoder.eof:
                    return
    except zlib.error:
        return
