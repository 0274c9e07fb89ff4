"""`godoty serve` with several workers: what the supervisor holds for them, and what each of them does."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import uvloop

from godoty_service.collector import importing, settle
from godoty_service.settings import Settings
from godoty_service.telemetry.shared import process_ended, shared_counts
from godoty_service.workers.port import held
from godoty_service.workers.supervisor import Supervisor
from godoty_service.workers.worker import Worker


def serve_by_workers(settings: Settings) -> None:
    """Serve from several processes until SIGINT or SIGTERM.

    Raises:
        ValueError: A port cannot be had.
        ChildProcessError: The workers cannot be started, or do not stay.
    """
    with ExitStack() as stack:
        listen = stack.enter_context(held(settings.listen, setting="GODOTY_LISTEN"))
        changes: dict[str, str] = {"listen": listen}
        counts: Path | None = None
        if settings.metrics_listen:
            page = held(settings.metrics_listen, setting="GODOTY_METRICS_LISTEN")
            changes["metrics_listen"] = stack.enter_context(page)
            counts = stack.enter_context(shared_counts())
        work = _work(settings.model_copy(update=changes), counts)
        on_end = partial(process_ended, counts) if counts is not None else lambda _: None
        Supervisor(count=settings.workers, work=work, on_end=on_end).run()


def _work(settings: Settings, counts: Path | None) -> Callable[[Worker], None]:
    """Import all that a worker needs, once for all of them, and tell what it does."""
    with importing():
        from godoty_service.server import serve  # noqa: PLC0415 - Strands takes a second to import
    settle()

    def work(worker: Worker) -> None:
        uvloop.run(serve(settings, worker=worker, counts=counts))

    return work
