"""Decodes a response's body: server-sent events, or one document, as its first bytes show.

Gateways state wrong content types, so those do not decide.
"""

# Bounds the memory that a provider which sends no line end can fill. An answer of 8 MiB of UTF-8, which is what the log
# takes, can be three times as large when it is escaped.
_MAX_EVENT = 24 * 1024 * 1024
_MAX_DOCUMENT = 24 * 1024 * 1024
_EVENT_LINES = 2  # of an event of one data line
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_EVENTS = b"deir:"  # first bytes of `data`, `event`, `id`, `retry`, and of a comment


class EventTooLarge(ValueError):
    """An event or a document exceeds 24 MiB."""


class EventDecoder:
    """Splits a byte stream into the `data` of its events; comments, names and ids are skipped.

    A line ends with LF, CRLF or CR, also if the network splits it there; an event ends with an empty line; several
    data lines of one event are joined by LF. A line that starts a JSON object counts as data: gateways write errors
    into a stream that way.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # of the line that has not ended
        self._data: list[bytes] = []
        self._size = 0  # of both
        self._ready: list[bytes] = []
        self._skips = False  # the rest of a line that is too large

    def feed(self, chunk: bytes) -> list[bytes]:
        """Add bytes and return the data of each event that they complete.

        Raises:
            EventTooLarge: No event ended within 24 MiB. It is dropped; the next call returns the events around it.
        """
        if (
            chunk.startswith(b"data: ")
            and chunk.endswith(b"\n\n")
            and chunk.count(b"\n") == _EVENT_LINES
            and b"\r" not in chunk
            and not (self._rest or self._data or self._ready or self._skips)
        ):
            return [chunk[6:-2]]  # one event, the usual case
        if b"\n" not in chunk and b"\r" not in chunk and (not self._rest or self._rest[-1][-1:] != b"\r"):
            self._buffer(chunk)
        else:
            self._split(b"".join((*self._rest, chunk)) if self._rest else chunk)
        ready, self._ready = self._ready, []
        return ready

    def end(self) -> list[bytes]:
        """Return the event that the stream did not end with an empty line: providers omit it after `[DONE]`."""
        events = self.feed(b"\n\n") if self._rest or self._data else []
        self._rest.clear()
        return events

    def _split(self, text: bytes) -> None:
        """Split off whole lines, and buffer the beginning of the last one."""
        carriage_return = b"\r" if text.endswith(b"\r") else b""  # its LF may be in the next chunk
        if b"\r" in text:
            text = text[: len(text) - len(carriage_return)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        if self._skips and lines:
            del lines[0]
            self._skips = False
        self._rest.clear()
        for line in lines:
            if not line:
                self._flush()
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif line.startswith(b"{"):
                self._data.append(line)
        self._size = sum(map(len, self._data)) if self._data else 0
        self._buffer(rest + carriage_return)

    def _buffer(self, rest: bytes) -> None:
        """Buffer the beginning of a line.

        Raises:
            EventTooLarge: It is too large, together with the data lines before it.
        """
        if rest and not self._skips:
            self._rest.append(rest)
            self._size += len(rest)
        if self._size > _MAX_EVENT:
            self._skips = bool(self._rest)
            self._rest.clear()
            self._data.clear()
            self._size = 0
            raise EventTooLarge

    def _flush(self) -> None:
        if self._data:
            self._ready.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
            self._data.clear()
            self._size = 0


class BodyDecoder:
    """Splits a body into the data of its events; a document is returned whole, at the end.

    Attributes:
        feed: Adds bytes, and returns the data of the events that they complete.
        whole: The body is a document. False until its first bytes arrive.
    """

    def __init__(self) -> None:
        self.feed = self._begin
        self.whole = False
        self._first = b""
        self._events = EventDecoder()
        self._document: list[bytes] = []
        self._size = 0

    def end(self) -> list[bytes]:
        """Return the data that the end of the body completes.

        Raises:
            EventTooLarge: The document has more than 24 MiB.
        """
        if not self.whole:
            return self._events.end()
        if self._size > _MAX_DOCUMENT:
            raise EventTooLarge
        return [b"".join(self._document)]

    def _begin(self, chunk: bytes) -> list[bytes]:
        first = (self._first + chunk).lstrip(_SPACE)
        if _BYTE_ORDER_MARK.startswith(first[:3]) and len(first) < len(_BYTE_ORDER_MARK):
            self._first = first
            return []
        first = first.removeprefix(_BYTE_ORDER_MARK).lstrip(_SPACE)
        self._first = b""
        if not first:
            return []
        self.whole = first[0] not in _EVENTS
        self.feed = self._collect if self.whole else self._events.feed
        return self.feed(first)

    def _collect(self, chunk: bytes) -> list[bytes]:
        self._size += len(chunk)
        if self._size <= _MAX_DOCUMENT:
            self._document.append(chunk)
        return []
