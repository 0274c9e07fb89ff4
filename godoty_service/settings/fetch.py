"""The settings of the tool http_fetch: which hosts it may request, and how much it may take."""

from pydantic import Field

from godoty_service.agents.outbound.hosts import HostPattern, read_hosts
from godoty_service.settings.mcp import McpSettings
from godoty_service.settings.types import Hosts, Network, Networks, read_networks


class FetchSettings(McpSettings):
    """The settings of http_fetch."""

    fetch_hosts: Hosts | None = Field(
        None,
        description="Hosts that the tool `http_fetch` may request, by commas: `HOST`, `*.DOMAIN` for subdomains, or `*`"
        " for all, each with `:PORT` unless the port is the default one; unset: none, and no agent can have the tool.",
    )
    fetch_networks: Networks | None = Field(
        None,
        description="Networks that these hosts may be in although they are not public, also without TLS; unset: none.",
    )
    fetch_bytes: int = Field(
        64 * 1024,
        ge=1024,
        le=1024 * 1024,
        description="Largest document of `http_fetch`, in bytes; of a larger one the model gets the beginning. Of an"
        " HTML document its text counts.",
    )
    fetch_timeout: float = Field(
        20.0,
        ge=0.05,
        le=300,
        description="Seconds that a call of `http_fetch` may take, redirects included; then the model gets an error.",
    )
    fetch_connections: int = Field(
        16,
        ge=1,
        le=256,
        description="Requests of `http_fetch` that one tenant has at the same time on a server process; a further one"
        " waits. All tenants together have 256 for each of HTTP and HTTPS.",
    )

    @property
    def fetch_host_patterns(self) -> tuple[HostPattern, ...]:
        """The hosts that may be requested."""
        return read_hosts(self.fetch_hosts) if self.fetch_hosts is not None else ()

    @property
    def fetch_allowed_networks(self) -> tuple[Network, ...]:
        """The networks that are allowed although they are not public."""
        return read_networks(self.fetch_networks) if self.fetch_networks is not None else ()
