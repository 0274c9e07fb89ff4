"""The meter of a sub-agent: the turn's own, with the sub-agent's name in the entries."""

from typing import Any

from godoty_service.ledger.entries import CallPurpose
from godoty_service.metering.meter import CallingAgent, TurnMeter
from godoty_service.metering.open_call import OpenCall


class SubAgentMeter:
    """Meters the model calls of one sub-agent on its turn's meter."""

    def __init__(self, meter: TurnMeter, agent: CallingAgent) -> None:
        """Create it.

        Args:
            meter: The turn's meter.
            agent: The sub-agent.
        """
        self._meter = meter
        self._agent = agent

    async def open(self, *, purpose: CallPurpose, **request: Any) -> OpenCall:
        """Open a call as `TurnMeter.open` does; an answer of the agent has the purpose of a sub-agent."""
        if purpose is CallPurpose.AGENT:
            purpose = CallPurpose.SUB_AGENT
        return await self._meter.open(purpose=purpose, agent=self._agent, **request)
