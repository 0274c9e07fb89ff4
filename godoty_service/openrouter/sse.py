"""Server-sent events, as far as a completion stream uses them: bytes in, the data of each event out."""

_MAX_EVENT = 8 * 1024 * 1024  # a provider that sends no line end must not fill the memory


class EventTooLarge(ValueError):
    """An event outgrew all reason."""


class EventDecoder:
    """Cuts a byte stream into the `data` of its events. Comments, names and ids are passed over.

    A line ends with LF, CRLF or CR, also when the network cuts in the middle of it; an event ends with an empty
    line; several data lines of one event are joined by LF.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take some bytes and return the data of each event that they complete.

        Raises:
            EventTooLarge: No event ended within 8 MiB.
        """
        text = self._rest + chunk
        if b"\r" in text:
            held = b"\r" if text.endswith(b"\r") else b""  # its LF may be in the next chunk
            text = text[: len(text) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        else:
            held = b""
        *lines, rest = text.split(b"\n")
        self._rest = rest + held
        events: list[bytes] = []
        for line in lines:
            if not line:
                self._flush(events)
            elif line.startswith(b"data:"):
                data = line[6:] if line[5:6] == b" " else line[5:]
                self._data.append(data)
                self._size += len(data)
        if len(self._rest) + self._size > _MAX_EVENT:
            raise EventTooLarge
        return events

    def end(self) -> list[bytes]:
        """Return what an end without an empty line leaves: providers forget it after `[DONE]`."""
        events = self.feed(b"\n\n") if self._rest or self._data else []
        self._rest = b""
        return events

    def _flush(self, events: list[bytes]) -> None:
        if self._data:
            events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
            self._data.clear()
            self._size = 0
