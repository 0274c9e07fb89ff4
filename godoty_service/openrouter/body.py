"""Decides by a body's first bytes what it is, whatever its content type says: a stream of events, or one document."""

from godoty_service.openrouter.sse import EventDecoder, EventTooLarge

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_EVENTS = b"deir:"  # data, event, id, retry, and a comment
_MAX_DOCUMENT = 24 * 1024 * 1024


class BodyDecoder:
    """Cuts a body into the data of its events; a document is returned as a whole, at the end.

    Attributes:
        feed: Takes some bytes, and returns the data of the events that they complete.
        whole: The body is a document. False until its first bytes are here.
    """

    def __init__(self) -> None:
        self.feed = self._begin
        self.whole = False
        self._first = b""
        self._events = EventDecoder()
        self._document: list[bytes] = []
        self._size = 0

    def end(self) -> list[bytes]:
        """Return what the end of the body completes.

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
