"""Configures logging: structlog and the standard library's logging through one pipeline to stderr."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.types import EventDict, Processor

from godoty_service.telemetry.log_redaction import WITHHELD, clean, describe, is_trusted, mask, type_name

# Below WARNING these print prompts, answers, whole requests or database commands.
QUIET = (
    "asyncio",
    "grpc",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "mcp",
    "motor",
    "openai",
    "opentelemetry",
    "pymongo",
    "strands",
    "urllib3",
    "uvicorn.access",
)
# The `mcp` package reports as errors what tenants' servers do, each message of them; its session calls itself "client".
# `agents/mcp` logs what matters of it.
SILENT = ("mcp.client", "client")
OWN_HANDLERS = ("uvicorn", "uvicorn.access", "uvicorn.error")

# Under these names an event of ours has content of a conversation.
CONTENT_KEYS = frozenset(
    {
        "answer",
        "arguments",
        "content",
        "input",
        "input_json",
        "messages",
        "output",
        "prompt",
        "raw_input",
        "reasoning",
        "system_prompt",
        "text",
    }
)


def configure_logs(
    *, level: str = "INFO", pretty: bool = False, log_content: bool = False, stream: TextIO | None = None
) -> None:
    """Write every log record to one stream, as JSON lines unless `pretty`.

    Call it once, at the start of the process; a second call replaces the first.

    Args:
        level: The lowest level that is logged, by its standard name. Libraries that log content stay at WARNING.
        pretty: Write readable lines for a terminal instead of JSON.
        log_content: Whether prompts, answers, tool data and the texts of foreign exceptions may be logged. Keys are
            masked in any case.
        stream: The stream; None: stderr.
    """
    target = sys.stderr if stream is None else stream
    shared = _shared_processors(log_content=log_content)
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(pretty=pretty, colors=target.isatty()),
            ],
            foreign_pre_chain=[_ForeignCleaner(log_content=log_content), *shared],
            use_get_message=False,  # only `_ForeignCleaner` merges a record's arguments
            pass_foreign_args=True,
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # module-level loggers follow a second call
    )
    _route(handler, level=level)


def _shared_processors(*, log_content: bool) -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([] if log_content else [_withhold_content]),
        _ExceptionDescriber(log_content=log_content),
        _mask_keys,
    ]


def _renderer(*, pretty: bool, colors: bool) -> Processor:
    if pretty:
        return structlog.dev.ConsoleRenderer(colors=colors)
    return structlog.processors.JSONRenderer()


def _route(handler: logging.Handler, *, level: str) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    floor = max(root.level, logging.WARNING)
    for name in QUIET:
        logging.getLogger(name).setLevel(floor)
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in OWN_HANDLERS:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.captureWarnings(capture=True)


def _withhold_content(_logger: Any, _method: str, event: EventDict) -> EventDict:
    for key in CONTENT_KEYS & event.keys():
        event[key] = WITHHELD
    return event


def _mask_keys(_logger: Any, _method: str, event: EventDict) -> EventDict:
    # The formatter removes its own entries (`_record`, `_from_structlog`) before rendering.
    for key, value in event.items():
        if not key.startswith("_"):
            event[key] = mask(value)
    return event


class _ExceptionDescriber:
    """Turns `exc_info` into `exception` and `exception_type`."""

    def __init__(self, *, log_content: bool) -> None:
        self._log_content = log_content

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        error = _exception_of(event.pop("exc_info", None))
        if error is not None:
            event["exception_type"] = type_name(error)
            event["exception"] = describe(error, content=self._log_content)
        return event


def _exception_of(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if isinstance(exc_info[1], BaseException) else None
    return sys.exc_info()[1] if exc_info else None


class _ForeignCleaner:
    """Sets the text of a library's record, without what it may quote."""

    def __init__(self, *, log_content: bool) -> None:
        self._log_content = log_content

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> EventDict:
        record: logging.LogRecord = event["_record"]
        record.args = event.pop("positional_args", None)
        open_text = self._log_content or is_trusted(record.name)
        event["event"] = record.getMessage() if open_text else clean(record)
        record.args = None
        return event
