"""Server-sent events, as far as a completion stream uses them: bytes in, the data of each event out."""

# A provider that sends no line end must not fill the memory. The 8 MiB of UTF-8 that a log holds are so many escaped.
_LINES = 2  # of an event of one data line
_MAX_EVENT = 24 * 1024 * 1024


class EventTooLarge(ValueError):
    """An event outgrew all reason."""


class EventDecoder:
    """Cuts a byte stream into the `data` of its events. Comments, names and ids are passed over.

    A line ends with LF, CRLF or CR, also when the network cuts in the middle of it; an event ends with an empty
    line; several data lines of one event are joined by LF. A line that is a JSON object counts as data: gateways
    write an error into a stream that way.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # of the line that has not ended
        self._data: list[bytes] = []
        self._size = 0  # of both
        self._ready: list[bytes] = []
        self._skips = False  # the rest of a line that is too large

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take some bytes and return the data of each event that they complete.

        Raises:
            EventTooLarge: No event ended within 24 MiB. It is dropped; those around it are returned by the next call.
        """
        if (
            chunk.startswith(b"data: ")
            and chunk.endswith(b"\n\n")
            and chunk.count(b"\n") == _LINES
            and b"\r" not in chunk
            and not (self._rest or self._data or self._ready or self._skips)
        ):
            return [chunk[6:-2]]  # one event, as most come
        if b"\n" not in chunk and b"\r" not in chunk and (not self._rest or self._rest[-1][-1:] != b"\r"):
            self._hold(chunk)
        else:
            self._split(b"".join((*self._rest, chunk)) if self._rest else chunk)
        ready, self._ready = self._ready, []
        return ready

    def end(self) -> list[bytes]:
        """Return what an end without an empty line leaves: providers forget it after `[DONE]`."""
        events = self.feed(b"\n\n") if self._rest or self._data else []
        self._rest.clear()
        return events

    def _split(self, text: bytes) -> None:
        """Take whole lines, and the beginning of one."""
        held = b"\r" if text.endswith(b"\r") else b""  # its LF may be in the next chunk
        if b"\r" in text:
            text = text[: len(text) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
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
        self._hold(rest + held)

    def _hold(self, rest: bytes) -> None:
        """Keep the beginning of a line.

        Raises:
            EventTooLarge: It is too large, with the data lines before it.
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
