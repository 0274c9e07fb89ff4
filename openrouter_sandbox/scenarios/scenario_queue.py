"""Selects the scenario of a request: its own directive, else a queued scenario, else a standing default."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from openrouter_sandbox.scenarios.scenario import Scenario, ScenarioError


@dataclass
class _Entry:
    """A scenario for the next `times` requests of one model, or of any model."""

    scenario: Scenario
    model: str | None
    times: int

    def matches(self, model: str) -> bool:
        return self.model is None or self.model == model

    def as_dict(self) -> dict[str, Any]:
        scenario = {"scenario": self.scenario.name, "params": dict(self.scenario.parameters)}
        return {**scenario, "model": self.model, "repeat": self.times}


class ScenarioQueue:
    """Queued scenarios, standing defaults, and the number of failures per request for `times=`."""

    def __init__(self) -> None:
        self._queue: list[_Entry] = []
        self._standing: list[_Entry] = []
        self._failures: Counter[str] = Counter()

    def choose(self, text: str, model: str) -> Scenario:
        """Return the scenario for a request's last user text and model; a queued one is consumed."""
        directive = Scenario.parse(text)
        if directive is not None:
            return directive
        for entry in self._queue:
            if entry.matches(model):
                entry.times -= 1
                if entry.times <= 0:
                    self._queue.remove(entry)
                return entry.scenario
        return next((entry.scenario for entry in self._standing if entry.matches(model)), Scenario())

    def add(self, spec: dict[str, Any]) -> None:
        """Queue a scenario, or make it a standing default.

        Args:
            spec: `{"directive": "@sandbox ..."}` or `{"scenario": NAME, "params": {...}}`, with `"model"` (only
                requests for this model), `"repeat"` (number of requests, default 1) or `"standing": true`.

        Raises:
            ScenarioError: The scenario or a parameter is unknown.
        """
        entry = _Entry(_scenario(spec), spec.get("model"), int(spec.get("repeat", 1)))
        if spec.get("standing"):
            self._standing = [other for other in self._standing if other.model != entry.model]
            self._standing.append(entry)
            self._standing.sort(key=lambda other: other.model is None)  # a default for a model precedes the general one
        else:
            self._queue.append(entry)

    def record_failure(self, request_hash: str, times: int) -> bool:
        """Count a failure of a request; return False if it has failed `times` times already."""
        if self._failures[request_hash] >= times:
            return False
        self._failures[request_hash] += 1
        return True

    def as_dict(self) -> dict[str, Any]:
        """Return the queued and standing scenarios."""
        return {
            "queue": [entry.as_dict() for entry in self._queue],
            "standing": [entry.as_dict() for entry in self._standing],
        }

    def clear(self) -> None:
        """Remove the scenarios and the failure counts."""
        self._queue.clear()
        self._standing.clear()
        self._failures.clear()


def _scenario(spec: dict[str, Any]) -> Scenario:
    if "directive" in spec:
        scenario = Scenario.parse(str(spec["directive"]))
        if scenario is None:
            raise ScenarioError(f"no directive in {spec['directive']!r}; write '@sandbox NAME key=value'")
        return scenario
    return Scenario.create(str(spec.get("scenario", "")), spec.get("params"))
