"""A child's lifeline: on Linux the kernel ends a process whose parent died, however the parent died."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

# Loaded before any fork: between fork and exec a child of a threaded process must not load libraries.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(signum: int = signal.SIGKILL) -> None:
    """Ask the kernel to send this process `signum` when the thread that started it ends.

    Linux counts the starting *thread* as the parent: start children from a thread that lives on.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)


def watch_parent(signum: int = signal.SIGTERM) -> None:
    """Call early in a child's own main: `die_with_parent`, also when the parent is gone already."""
    parent = os.getppid()
    die_with_parent(signum)
    if os.getppid() != parent:
        raise SystemExit(1)
