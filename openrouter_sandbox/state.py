"""The state that all requests of one sandbox share."""

from dataclasses import dataclass
from pathlib import Path

from openrouter_sandbox.answers.reasoning_check import ReasoningCheck
from openrouter_sandbox.billing.generation import BillingState
from openrouter_sandbox.connections import Connections
from openrouter_sandbox.models.catalogue import Catalogue
from openrouter_sandbox.request_log import RequestLog
from openrouter_sandbox.scenarios.holds import Holds
from openrouter_sandbox.scenarios.scenario_queue import ScenarioQueue


@dataclass(frozen=True)
class SandboxState:
    """The shared state of one sandbox.

    Attributes:
        catalogue: The models and their providers.
        billing: The invoice, the generation records and the settings.
        scenarios: The queued and standing scenarios.
        request_log: The newest requests.
        connections: The open and aborted responses.
        holds: The tokens released to paused answers.
        reasoning_check: The reasoning sent, to compare with what clients return.
        recorded: The folder of recorded responses; None without one.
    """

    catalogue: Catalogue
    billing: BillingState
    scenarios: ScenarioQueue
    request_log: RequestLog
    connections: Connections
    holds: Holds
    reasoning_check: ReasoningCheck
    recorded: Path | None
