"""A request and the bytes of its answer, with the time of each piece."""

import asyncio
import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Exchange:
    """A request and its answer; times are of `time.perf_counter`.

    Attributes:
        begun: When the request was written.
        ended: When its answer was complete.
        times: When each piece arrived.
        pieces: The pieces of the answer's body (gRPC) or of the whole answer (HTTP/1.1).
        trailer: The header blocks of a gRPC answer, encoded: the status stands in the last one.
        done: Resolves when the answer is complete, with what went wrong or None.
    """

    done: "asyncio.Future[str | None]"
    begun: float = 0.0
    ended: float = 0.0
    times: list[float] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    trailer: bytes = b""

    def begin(self) -> None:
        """Record that the request is sent."""
        self.begun = time.perf_counter()

    def end(self, now: float, fault: str | None = None) -> None:
        """Record that the answer is complete, or has failed."""
        self.ended = now
        if not self.done.done():
            self.done.set_result(fault)
