"""Which scenario answers a request: its own directive, else the queue, else the standing default."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from godoty_service.sandbox.scenario import Scenario, ScenarioError


@dataclass
class _Planned:
    """A scenario that waits for requests, for all models or for one."""

    scenario: Scenario
    model: str | None
    times: int

    def fits(self, model: str) -> bool:
        return self.model is None or self.model == model

    def as_dict(self) -> dict[str, Any]:
        shown = {"scenario": self.scenario.name, "params": dict(self.scenario.parameters)}
        return {**shown, "model": self.model, "repeat": self.times}


class ScenarioBook:
    """The queue of one-shot scenarios, the standing defaults, and how often a request has failed."""

    def __init__(self) -> None:
        self._queue: list[_Planned] = []
        self._standing: list[_Planned] = []
        self._failures: Counter[str] = Counter()

    def choose(self, text: str, model: str) -> Scenario:
        """The scenario of a request, by its last user text and its model; takes it off the queue."""
        directive = Scenario.parse(text)
        if directive is not None:
            return directive
        for planned in self._queue:
            if planned.fits(model):
                planned.times -= 1
                if planned.times <= 0:
                    self._queue.remove(planned)
                return planned.scenario
        return next((planned.scenario for planned in self._standing if planned.fits(model)), Scenario())

    def plan(self, wish: dict[str, Any]) -> None:
        """Queue a scenario, or make it a standing default.

        Args:
            wish: `{"directive": "@sandbox ..."}` or `{"scenario": NAME, "params": {...}}`, with `"model"` (only
                this requested model), `"repeat"` (how many requests, 1) or `"standing": true`.

        Raises:
            ScenarioError: When it names an unknown scenario or parameter.
        """
        planned = _Planned(_scenario(wish), wish.get("model"), int(wish.get("repeat", 1)))
        if wish.get("standing"):
            self._standing = [other for other in self._standing if other.model != planned.model]
            self._standing.append(planned)
            self._standing.sort(key=lambda other: other.model is None)  # the one for a model goes first
        else:
            self._queue.append(planned)

    def may_fail(self, request_hash: str, times: int) -> bool:
        """Count a failure of this very request; False once it has failed `times` times."""
        if self._failures[request_hash] >= times:
            return False
        self._failures[request_hash] += 1
        return True

    def as_dict(self) -> dict[str, Any]:
        """What is planned."""
        return {
            "queue": [planned.as_dict() for planned in self._queue],
            "standing": [planned.as_dict() for planned in self._standing],
        }

    def clear(self) -> None:
        """Forget what is planned and what has failed."""
        self._queue.clear()
        self._standing.clear()
        self._failures.clear()


def _scenario(wish: dict[str, Any]) -> Scenario:
    if "directive" in wish:
        scenario = Scenario.parse(str(wish["directive"]))
        if scenario is None:
            raise ScenarioError(f"no directive in {wish['directive']!r}; write '@sandbox NAME key=value'")
        return scenario
    return Scenario.make(str(wish.get("scenario", "")), wish.get("params"))
