"""CPU that refusing a hostile output schema takes: `python -m bench.hostile_schemas`.

A schema is checked in the event loop. Exit status 1: the least of three refusals of one took more than 50 ms of its
thread's CPU.
"""

import contextlib
import sys
import time

from godoty_service.agents.output.schema import OutputSchema
from tests.support.output_schemas import HOSTILE

_LIMIT = 0.05  # seconds
_TRIES = 3


def refusal_seconds(text: str) -> float:
    """Return the least CPU of a few refusals, in seconds."""
    taken: list[float] = []
    for _ in range(_TRIES):
        start = time.thread_time()
        with contextlib.suppress(ValueError):
            OutputSchema.parse(text)
        taken.append(time.thread_time() - start)
    return min(taken)


def main() -> int:
    """Measure and print, the longest first."""
    taken = {name: refusal_seconds(make()) for name, (make, _) in HOSTILE.items()}
    for name, seconds in sorted(taken.items(), key=lambda each: -each[1]):
        print(f"{name:60}{seconds * 1000:8.1f} ms")
    return int(max(taken.values()) > _LIMIT)


if __name__ == "__main__":
    sys.exit(main())
