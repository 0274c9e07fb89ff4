"""Where the actions of turns are stored."""

from dataclasses import dataclass
from datetime import timedelta

from godoty_service.actions.calls import StepCalls
from godoty_service.actions.steps import Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionStores:
    """The stores.

    Attributes:
        calls: The calls of waiting steps.
        steps: The waiting steps.
        retention: The time after which actions expire.
    """

    calls: StepCalls
    steps: Steps
    retention: timedelta
