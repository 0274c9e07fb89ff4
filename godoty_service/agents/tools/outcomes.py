"""How tool calls end: what metrics count."""

from enum import StrEnum


class ToolKind(StrEnum):
    """Whose tool was called."""

    BUILT_IN = "built_in"  # the server's own
    MCP = "mcp"  # an MCP server's
    AGENT = "agent"  # another agent
    CLIENT = "client"  # the caller's own
    UNKNOWN = "unknown"  # there is no tool of the name that the model gave


class ToolOutcome(StrEnum):
    """How a call ended."""

    OK = "ok"
    ERROR = "error"  # it failed
    TIMEOUT = "timeout"  # it took longer than it may, or what it asked did
    REFUSED = "refused"  # it was not made: its input, or the host or agent that it names, is not permitted


class ToolTimedOut(ValueError):
    """A call took longer than it may. A ValueError, as Strands shows the text of no other error alone."""


class ToolRefused(ValueError):
    """A call was not made. A ValueError, as Strands shows the text of no other error alone."""


def outcome_of(*, succeeded: bool, error: BaseException | None, cancelled: bool) -> ToolOutcome:
    """Return the outcome of a call.

    Args:
        succeeded: Whether its result is a success.
        error: The exception that comes with its result; None: there is none.
        cancelled: A check before the call has answered it in the tool's place.
    """
    if succeeded:
        return ToolOutcome.OK
    if cancelled or isinstance(error, ToolRefused):
        return ToolOutcome.REFUSED
    return ToolOutcome.TIMEOUT if isinstance(error, ToolTimedOut) else ToolOutcome.ERROR
