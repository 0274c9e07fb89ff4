"""Tunes the garbage collector for a long-lived server."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# By default Python scans the youngest generation at 700 new objects, which a turn creates in a moment. At 16 streams
# that took 0.14 s of 3 s of CPU, the longest scan 10 ms; with the objects of the start frozen (see `freeze_gc`), a
# threshold of 3,000 takes 0.08 s and 3 ms, one of 10,000 takes 0.06 s and 10 ms. Memory is the same.
_YOUNG_OBJECTS = 3_000
# The middle generation is scanned after 3 scans of the youngest, not 10: beside 200 refused requests a second its scans
# blocked the event loop for up to 30 ms, and one of the oldest generation for 40 ms.
_YOUNG_SCANS = 3
# A scan of the oldest generation takes 0.5 ms for each stream, 0.2 s at 250, and the default of 10 caused several in a
# burst of turns. Ended turns leave hardly any garbage (see `Prepared.release`), so it is scanned rarely: after about
# 6,000 turns, whose garbage is some 15 MB.
_MIDDLE_SCANS = 1_000


@contextmanager
def pause_gc_for_imports() -> Iterator[None]:
    """Disable the collector while the block imports modules, then exclude their objects from its scans.

    Imports create a few hundred thousand objects and hardly any garbage: a fifth of their time would be spent on scans,
    and the first scan of all these objects afterwards would take a tenth of a second.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def freeze_gc() -> None:
    """Exclude all present objects from the collector's scans, and scan newer ones less often.

    Call it when a process has started completely. Objects that are not scanned are not written to either, so processes
    forked afterwards keep sharing their memory.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _YOUNG_SCANS, _MIDDLE_SCANS)
