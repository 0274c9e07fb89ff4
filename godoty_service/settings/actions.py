"""The settings of actions."""

from pydantic import Field

from godoty_service.settings.fetch import FetchSettings


class ActionSettings(FetchSettings):
    """The settings of actions."""

    action_retention: float = Field(
        30 * 86_400.0,
        ge=1,
        le=366 * 86_400,
        description="Seconds for which a tool call waits for an approval, or for a result of the caller's; then it"
        " counts as denied.",
    )
    action_interval: float = Field(
        5.0,
        ge=0.05,
        le=3600,
        description="Seconds between two searches for sessions that can go on: their actions are decided or expired.",
    )
