import asyncio
import io
import json
import logging
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
import structlog
from pymongo.errors import AutoReconnect

from godoty_service.errors import ProviderUnavailable
from godoty_service.telemetry.logs import configure_logs

KEY = "gdt_abc123_S3cretS3cretS3cret"
SECRET = "the user's own words"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(stream: io.StringIO) -> Lines:
    configure_logs(stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def fail_with(fault: Exception) -> None:
    raise fault


def test_line_is_json_with_time_level_logger_and_context(lines: Lines) -> None:
    """An event of ours is one JSON line: event, level, UTC time, logger, and the ids bound around it."""
    structlog.contextvars.bind_contextvars(tenant_id="t1", turn_id="u1")
    structlog.get_logger("godoty_service.turns").info("turn_started", calls=2)

    (line,) = lines()
    age = datetime.now(UTC) - datetime.fromisoformat(line.pop("timestamp"))
    expected = {
        "event": "turn_started",
        "level": "info",
        "logger": "godoty_service.turns",
        "tenant_id": "t1",
        "turn_id": "u1",
        "calls": 2,
    }
    assert expected == line
    assert abs(age.total_seconds()) < 60


def test_standard_library_records_share_the_pipeline(lines: Lines) -> None:
    """A library's record gets the same fields and the same context as an event of ours."""
    structlog.contextvars.bind_contextvars(call_id="c1")
    logging.getLogger("pymongo.pool").warning("pool cleared, generation %d", 4)

    (line,) = lines()
    assert (line["event"], line["level"], line["call_id"]) == ("pool cleared, generation 4", "warning", "c1")


@pytest.mark.parametrize("name", ["mcp.client.streamable_http", "client"])
def test_what_servers_of_tenants_do_wrong_is_no_log_line(lines: Lines, name: str) -> None:
    """The `mcp` package would log each message that is wrong, under both names."""
    logging.getLogger(name).warning("Failed to validate notification: %s", "notifications/wrong")

    assert lines() == []


@pytest.mark.parametrize("name", ["strands.agent", "httpx", "httpx2", "openai._base_client", "pymongo.command"])
def test_chatty_libraries_stay_at_warning(stream: io.StringIO, name: str) -> None:
    """Libraries that print requests below WARNING are silent there, even when everything else is at DEBUG."""
    configure_logs(level="DEBUG", stream=stream)
    logging.getLogger(name).info("HTTP Request: POST https://x")
    logging.getLogger(name).debug("request options: %s", {"messages": SECRET})

    assert stream.getvalue() == ""


def test_quiet_libraries_follow_a_higher_level(stream: io.StringIO) -> None:
    """A level above WARNING silences libraries' warnings too."""
    configure_logs(level="ERROR", stream=stream)
    logging.getLogger("strands.agent").warning("anything")

    assert stream.getvalue() == ""


@pytest.mark.parametrize("raw_input", [SECRET, "swordfish"])
def test_strands_raw_tool_input_is_withheld(lines: Lines, raw_input: str) -> None:
    """Strands' warning about broken tool input keeps the tool's name, and loses the input."""
    logging.getLogger("strands.event_loop.streaming").warning(
        "tool_name=<%s>, raw_input=<%s> | failed to parse tool input json", "calculator", raw_input
    )

    (line,) = lines()
    assert line["event"] == "tool_name=<calculator>, raw_input=<[withheld]> | failed to parse tool input json"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"tool_name=<do {SECRET}> | invalid tool name pattern", "tool_name=<[withheld]> | invalid tool name pattern"),
        (f"Tool validation failed for Answer: {SECRET}", "Tool validation failed for Answer"),
        (f"Task exception was never retrieved\nfuture: <Task {SECRET}>", "Task exception was never retrieved"),
    ],
)  # fmt: skip
def test_formatted_text_of_a_library_is_cut_where_a_quote_begins(lines: Lines, text: str, shown: str) -> None:
    """A library's text that was formatted before it was logged keeps its constant beginning."""
    logging.getLogger("strands.tools").warning(text)

    (line,) = lines()
    assert shown == line["event"]


def test_unretrieved_task_does_not_quote_its_exception(lines: Lines) -> None:
    """Asyncio's record of an unretrieved task has its exception's type and location, not its text."""

    async def fail() -> None:
        raise ValueError(SECRET)

    async def lose() -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        del task

    asyncio.run(lose())

    (line,) = [line for line in lines() if line["logger"] == "asyncio"]
    assert SECRET not in json.dumps(line)
    assert line["exception_type"] == "builtins.ValueError"


def test_warnings_do_not_quote_values(lines: Lines) -> None:
    """A warning, such as pydantic's about a value it cannot serialise, is logged by location and category."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn(f"unexpected input_value={SECRET}", UserWarning, stacklevel=1)

    (line,) = lines()
    assert line["event"].endswith("UserWarning")
    assert SECRET not in json.dumps(line)


def test_keys_are_masked_everywhere(stream: io.StringIO, lines: Lines) -> None:
    """A key is masked in texts, nested values, names and the reprs of objects."""

    class Holder:
        def __repr__(self) -> str:
            return f"Holder({KEY})"

    structlog.get_logger("godoty_service").error(
        f"refused {KEY}",
        nested={"headers": [{"authorization": "Bearer abc.def"}], KEY: 1},
        holder=Holder(),
        raw=f"bytes {KEY}".encode(),
        provider="sk-or-v1-0123456789abcdef",
        uri="mongodb://root:hunter2@db/godoty",
    )

    lines()
    for secret in ("S3cret", "abc.def", "0123456789abcdef", "hunter2"):
        assert secret not in stream.getvalue()
    assert stream.getvalue().count("[key]") == 7


def test_keys_in_exceptions_are_masked(stream: io.StringIO, lines: Lines) -> None:
    """A key in the text of an exception that may be shown is masked there, too."""
    try:
        fail_with(OSError(f"no route with {KEY}"))
    except OSError:
        structlog.get_logger("godoty_service").exception("failed")

    lines()
    assert "no route with [key]" in stream.getvalue()


def test_foreign_exception_is_logged_without_its_text(lines: Lines) -> None:
    """The text of a foreign exception may quote a prompt: its type, frames and cause are logged instead."""
    try:
        try:
            fail_with(KeyError(SECRET))
        except KeyError as fault:
            raise ValueError(f"bad value {SECRET}") from fault
    except ValueError:
        structlog.get_logger("godoty_service").exception("failed")

    (line,) = lines()
    text = line["exception"]
    assert SECRET not in text
    assert "builtins.ValueError (30 characters withheld)" in text
    assert "caused by\nbuiltins.KeyError" in text
    assert f"{__file__}:" in text
    assert "in fail_with" in text


def test_own_exception_is_logged_with_its_text(lines: Lines) -> None:
    """Texts of our own errors contain no prompt, so they are logged in full."""
    try:
        fail_with(ProviderUnavailable("the provider closed the stream"))
    except ProviderUnavailable:
        structlog.get_logger("godoty_service").exception("failed")

    (line,) = lines()
    assert "godoty_service.errors.ProviderUnavailable: the provider closed the stream" in line["exception"]


@pytest.mark.parametrize(
    "fault",
    [
        httpx2.ConnectError("connection refused"),
        AutoReconnect("connection refused"),
        ConnectionResetError("connection refused"),
    ],
)
def test_network_errors_are_logged_with_their_text(lines: Lines, fault: Exception) -> None:
    """The texts of network and database errors contain no prompt, so they are logged."""
    structlog.get_logger("godoty_service").error("failed", exc_info=fault)

    (line,) = [each for each in lines() if each["event"] == "failed"]
    assert "connection refused" in line["exception"]


def test_content_is_withheld_from_own_events_unless_allowed(stream: io.StringIO) -> None:
    """Values under the names of content are logged with `log_content` only."""
    logger = structlog.get_logger("godoty_service.turns")
    configure_logs(stream=stream)
    logger.info("turn_text", text=SECRET, input_json={"q": SECRET})
    withheld = stream.getvalue()
    configure_logs(stream=stream, log_content=True)
    logger.info("turn_text", text=SECRET)

    assert SECRET not in withheld
    assert SECRET in stream.getvalue()


def test_content_allowed_still_masks_keys(stream: io.StringIO) -> None:
    """Keys are masked even if content may be logged."""
    configure_logs(stream=stream, log_content=True)
    logging.getLogger("strands.tools").warning("tool input %s", KEY)

    assert "tool input [key]" in stream.getvalue()


def test_pretty_lines_have_the_same_content(stream: io.StringIO) -> None:
    """The console's lines go through the same pipeline: event, values, masked keys, exceptions."""
    configure_logs(stream=stream, pretty=True)
    try:
        fail_with(RuntimeError(SECRET))
    except RuntimeError:
        structlog.get_logger("godoty_service").exception("turn_failed", key=KEY)

    text = stream.getvalue()
    assert "turn_failed" in text
    assert "builtins.RuntimeError" in text
    assert "S3cret" not in text
    assert SECRET not in text
