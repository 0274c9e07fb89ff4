"""`godoty serve` with several worker processes."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import uvloop

from godoty_service.aio.gc import freeze_gc, pause_gc_for_imports
from godoty_service.cluster.port_reservation import reserve_port
from godoty_service.cluster.supervisor import Supervisor
from godoty_service.cluster.worker import Worker
from godoty_service.settings.settings import Settings
from godoty_service.telemetry.metrics_server import process_ended, shared_counts


def serve_by_workers(settings: Settings) -> None:
    """Serve from several processes until SIGINT or SIGTERM; the supervisor reserves their ports.

    Raises:
        ValueError: A port cannot be reserved.
        ChildProcessError: The workers cannot be started, or keep exiting.
    """
    with ExitStack() as stack:
        listen = stack.enter_context(reserve_port(settings.listen, setting="GODOTY_LISTEN"))
        changes: dict[str, str] = {"listen": listen}
        counts: Path | None = None
        if settings.metrics_listen:
            page = reserve_port(settings.metrics_listen, setting="GODOTY_METRICS_LISTEN")
            changes["metrics_listen"] = stack.enter_context(page)
            counts = stack.enter_context(shared_counts())
        work = _work(settings.model_copy(update=changes), counts)
        on_end = partial(process_ended, counts) if counts is not None else lambda _: None
        Supervisor(count=settings.workers, work=work, on_end=on_end).run()


def _work(settings: Settings, counts: Path | None) -> Callable[[Worker], None]:
    """Import what the workers need, once for all of them; return the function that each runs."""
    with pause_gc_for_imports():
        from godoty_service.server import serve  # noqa: PLC0415 - Strands takes a second to import
    freeze_gc()

    def work(worker: Worker) -> None:
        uvloop.run(serve(settings, worker=worker, counts=counts))

    return work
