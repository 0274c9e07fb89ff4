"""The errors of MCP servers, beside those of `godoty_service/errors.py`.

GodotyError
├── McpServerChanged    the server was changed since it was read
├── McpServerNotFound   the tenant has no such server
└── TooManyMcpServers   the tenant has as many servers as there may be
McpFailure              a request to a server failed; the turn goes on
└── McpUnavailable      the server cannot be reached, or does not speak the protocol
"""

from godoty_service.errors import GodotyError

MAX_TEXT = 500  # characters of a server's error message


class McpServerNotFound(GodotyError):
    """The tenant has no MCP server of this name."""

    reason = "MCP_SERVER_NOT_FOUND"

    @classmethod
    def of(cls, name: str) -> "McpServerNotFound":
        """Return the error for a name."""
        return cls(f"There is no MCP server {name}.", metadata={"mcp_server": name})


class McpServerChanged(GodotyError):
    """The server was changed since the caller read it, or is changed again and again."""

    reason = "ETAG_MISMATCH"

    @classmethod
    def of(cls, name: str, etag: str) -> "McpServerChanged":
        """Return the error for a server, whose etag now is `etag`; empty: there is no such server."""
        text = f"The MCP server {name} was changed meanwhile: read it again, and send the change with its etag."
        return cls(text, metadata={"etag": etag})


class TooManyMcpServers(GodotyError):
    """The tenant has as many MCP servers as there may be."""

    reason = "MCP_SERVER_LIMIT"


class McpFailure(Exception):
    """A request to an MCP server failed. The text is for the model and the tenant: bounded, and without secrets."""


class McpUnavailable(McpFailure):
    """The server cannot be reached, refuses the request, or does not speak the protocol."""

    def __init__(self, text: str, *, answered: bool = False) -> None:
        """Create the error.

        Args:
            text: What is wrong.
            answered: Whether the server answered at all.
        """
        super().__init__(text)
        self.answered = answered


def cut(text: str) -> str:
    """Return a server's text, shortened and without control characters."""
    shown = "".join(each if each.isprintable() else " " for each in text[: MAX_TEXT + 1])
    return shown if len(shown) <= MAX_TEXT else f"{shown[:MAX_TEXT]}..."
