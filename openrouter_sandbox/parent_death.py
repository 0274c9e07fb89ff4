"""Parent-death signal: on Linux the kernel ends a process when its parent dies, also after SIGKILL."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

# Loaded before any fork: a child of a threaded process must not load libraries between fork and exec.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(signum: int = signal.SIGKILL) -> None:
    """Have the kernel send `signum` to this process when the thread that started it ends.

    For Linux the starting *thread* is the parent: start children from a thread that outlives them.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)


def watch_parent(signum: int = signal.SIGTERM) -> None:
    """Call `die_with_parent`, and exit if the parent has died already; for the start of a child's main function."""
    parent = os.getppid()
    die_with_parent(signum)
    if os.getppid() != parent:
        raise SystemExit(1)
