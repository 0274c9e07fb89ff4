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
    """A request to an MCP server failed. Its text is for the model and the tenant: bounded, and without secrets.

    Attributes:
        text: What is wrong; empty: only the server says.
        said: The server's own words; empty: it said nothing.
    """

    def __init__(self, text: str, *, said: str = "") -> None:
        super().__init__(f"{text} {said}".strip())
        self.text = text
        self.said = said

    @property
    def own_text(self) -> str:
        """What is wrong, without the server's words: for the prompt, in which it must not give instructions."""
        return self.text or "The server answered with an error."


class McpUnavailable(McpFailure):
    """The server cannot be reached, refuses the request, or does not speak the protocol."""

    def __init__(self, text: str, *, said: str = "", answered: bool = False) -> None:
        """Create the error.

        Args:
            text: What is wrong; empty: only the server says.
            said: The server's own words.
            answered: Whether the server answered at all.
        """
        super().__init__(text, said=said)
        self.answered = answered


def cut(text: str) -> str:
    """Return a server's text, shortened and without control characters."""
    shown = "".join(each if each.isprintable() else " " for each in text[: MAX_TEXT + 1])
    return shown if len(shown) <= MAX_TEXT else f"{shown[:MAX_TEXT]}..."
