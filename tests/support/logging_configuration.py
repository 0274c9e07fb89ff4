"""The logging configuration of a test process, which commands and `configure_logs` change."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from godoty_service.telemetry.logs import QUIET


@contextmanager
def restored_logging() -> Iterator[None]:
    """Restore the configuration after the block: a handler that stays would write to a stream that is closed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name in QUIET:
            logging.getLogger(name).setLevel(logging.NOTSET)
        logging.captureWarnings(capture=False)
        structlog.contextvars.clear_contextvars()
        structlog.reset_defaults()
