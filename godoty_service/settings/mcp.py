"""The settings of MCP servers: which addresses they may have, and how much they may answer."""

from pydantic import Field

from godoty_service.settings.listener import ListenerSettings
from godoty_service.settings.types import Network, Networks, read_networks


class McpSettings(ListenerSettings):
    """The settings of MCP servers."""

    mcp_networks: Networks | None = Field(
        None,
        description="Networks that tenants' MCP servers may be in although they are not public, also without TLS;"
        " unset: none.",
    )
    mcp_answer_bytes: int = Field(
        1024 * 1024,
        ge=64 * 1024,
        le=1024 * 1024,
        description="Largest answer of an MCP server, in bytes; a larger one is an error that the model sees.",
    )

    @property
    def mcp_allowed_networks(self) -> tuple[Network, ...]:
        """The networks that are allowed although they are not public."""
        return read_networks(self.mcp_networks) if self.mcp_networks is not None else ()
