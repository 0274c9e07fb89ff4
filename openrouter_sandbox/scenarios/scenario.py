"""Scenarios: `@sandbox NAME key=value ...` in a request's text selects how it is answered."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

# Each name is a preset of parameters; every scenario accepts every parameter.
SCENARIOS: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "plain": {"tokens": "12"},
    "tool-loop": {"calls": "2", "parallel": "1"},
    "reasoning": {"reasoning": "8"},
    "fallback": {"skip": "1"},
    "slow": {"tokens": "20", "first_delay_ms": "500", "delay_ms": "100"},
    "error-before": {"status": "500"},
    "error-200": {"body_status": "429"},
    "error-mid": {"error_after": "3", "tokens": "12"},
    "reset": {"cut_after": "0", "tokens": "12"},
    "hang": {"hang_after": "0", "tokens": "12"},
    "delay-headers": {"headers_ms": "500"},
    "no-cost": {"no_cost": "1"},
    "byok": {"byok": "1"},
    "cached": {"cached_tokens": "half"},
    "websearch": {"searches": "1"},
    "long": {"tokens": "500", "flat": "1"},
    "replay": {},
    "whitespace": {"whitespace": "5"},
}

# Abbreviated parameter names, for scenarios with one main number.
_ABBREVIATIONS: Mapping[str, Mapping[str, str]] = {
    "error-mid": {"n": "error_after", "after": "error_after"},
    "error-200": {"status": "body_status"},
    "reset": {"n": "cut_after", "after": "cut_after"},
    "hang": {"n": "hang_after", "after": "hang_after"},
    "delay-headers": {"n": "headers_ms", "ms": "headers_ms"},
    "long": {"n": "tokens"},
    "fallback": {"n": "skip"},
    "websearch": {"n": "searches"},
    "whitespace": {"n": "whitespace", "lines": "whitespace"},
    "reasoning": {"n": "reasoning"},
    "tool-loop": {"n": "calls"},
    "plain": {"n": "tokens"},
    "slow": {"n": "tokens"},
}

PARAMETERS = frozenset(
    {
        *("text", "tokens", "flat", "rate", "delay_ms", "first_delay_ms", "comments", "finish"),
        *("hold", "hold_after"),
        *("calls", "parallel", "tool", "input", "until", "wrong", "at", "fault"),
        *("reasoning", "encrypted", "skip", "provider", "model_name", "usage_chunk"),
        *("status", "body_status", "retry_after", "times", "message"),
        *(
            "error_after",
            "usage",
            "code",
            "reason",
            "cut_after",
            "rst",
            "bill",
            "hang_after",
            "headers_ms",
            "bill_first",
        ),
        *("no_cost", "byok", "cached_tokens", "write_tokens", "overlap", "prompt_tokens"),
        *("uses", "together", "result_tokens", "tool_cost", "cited"),
        *("searches", "counter", "fee", "file", "whitespace", "record_ms", "record", "record_reads"),
    }
)

_FAULTS = frozenset({"status", "body_status", "error_after", "cut_after", "hang_after", "headers_ms"})

_DIRECTIVE = re.compile(r"@sandbox[ \t]+([a-z0-9-]+)((?:[ \t]+[a-z_]+=(?:\"[^\"]*\"|'[^']*'|[^\s\"']\S*))*)")
_PARAMETER = re.compile(r"([a-z_]+)=(\"[^\"]*\"|'[^']*'|\S+)")


class ScenarioError(Exception):
    """A directive has an unknown scenario, an unknown parameter or an invalid value."""


@dataclass(frozen=True)
class Scenario:
    """A scenario's name and its parameters, the name's defaults included."""

    name: str = "default"
    parameters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def create(cls, name: str, parameters: Mapping[str, Any] | None = None) -> "Scenario":
        """Create a scenario from its name and parameters.

        Raises:
            ScenarioError: The name or a parameter is unknown.
        """
        if name not in SCENARIOS:
            raise ScenarioError(f"unknown sandbox scenario {name!r}; known: {', '.join(SCENARIOS)}")
        full_names = _ABBREVIATIONS.get(name, {})
        given = {full_names.get(key, key): _text(value) for key, value in (parameters or {}).items()}
        unknown = sorted(given.keys() - PARAMETERS)
        if unknown:
            raise ScenarioError(f"unknown sandbox parameter {unknown[0]!r}; known: {', '.join(sorted(PARAMETERS))}")
        return cls(name, {**SCENARIOS[name], **given})

    @classmethod
    def parse(cls, text: str) -> "Scenario | None":
        """Return the last directive in a text; None without one."""
        found = list(_DIRECTIVE.finditer(text))
        if not found:
            return None
        name, tail = found[-1].groups()
        return cls.create(name, {key: value.strip("\"'") for key, value in _PARAMETER.findall(tail)})

    def at_step(self, step: int) -> "Scenario":
        """Return the scenario of a step (1, 2, ...) of a tool loop: faults and holds are `at` their step, if set."""
        if self.has("at") and self.number("at") != step:
            return self._without(_FAULTS | {"hold_after"})
        defaults = Scenario.create(self.text("fault")).parameters if self.has("fault") else {}
        return Scenario(self.name, {**defaults, **self.parameters})

    def has(self, key: str) -> bool:
        """Return whether a parameter is set."""
        return key in self.parameters

    def text(self, key: str, default: str = "") -> str:
        """Return a parameter as text."""
        return self.parameters.get(key, default)

    def number(self, key: str, default: int = 0) -> int:
        """Return a parameter as an integer."""
        value = self.parameters.get(key)
        try:
            return default if value is None else int(value)
        except ValueError:
            raise ScenarioError(f"sandbox parameter {key}={value} is not a whole number") from None

    def decimal(self, key: str) -> Decimal:
        """Return a parameter as an exact decimal; 0 if unset."""
        try:
            return Decimal(self.parameters.get(key, "0"))
        except InvalidOperation:
            raise ScenarioError(f"sandbox parameter {key}={self.text(key)} is not a number") from None

    def without_faults(self) -> "Scenario":
        """Return the scenario without its faults, for requests that have failed `times` times."""
        return self._without(_FAULTS)

    def _without(self, names: Collection[str]) -> "Scenario":
        return Scenario(self.name, {key: value for key, value in self.parameters.items() if key not in names})

    def flag(self, key: str) -> bool:
        """Return whether a parameter is set and not 0."""
        return self.parameters.get(key, "0") not in {"0", "false", "no", ""}


def without_directive(text: str) -> str:
    """Return a text without its directives, white space normalized."""
    return " ".join(_DIRECTIVE.sub(" ", text).split())


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
