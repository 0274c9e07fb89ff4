"""Numbers that several processes count together: Prometheus' client keeps each process's in files, and adds them up.

It decides for files when it is imported, so this module does not import it before.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def shared_counts() -> Iterator[Path]:
    """Have what this process and its children count from now on kept in a new directory, and delete it in the end.

    Call it before anything imports `prometheus_client`.
    """
    with TemporaryDirectory(prefix="godoty-metrics-", ignore_cleanup_errors=True) as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory  # the one way to say it
        yield Path(directory)


def process_ended(directory: Path, pid: int) -> None:
    """Take out what a process measured of itself while it ran; what it counted stays."""
    from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415 - see above

    mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call] # has no types
