"""Runs the server tools of a request as OpenRouter does: a loop of the model's answers and of the calls in them.

By default the model searches once, if the request offers a search. The scenario's `uses=N` is the number of calls of
each offered tool, one in each step, or all in the first with `together=1`; `result_tokens=N` is the size of a result.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from openrouter_sandbox.conversation import Conversation, RequestError
from openrouter_sandbox.models.catalogue import Model
from openrouter_sandbox.models.server_tools import (
    AUTO,
    FALLBACK,
    NATIVE,
    PARAMETERS,
    WEB_FETCH,
    WEB_SEARCH,
    call_price,
    has_engine,
)
from openrouter_sandbox.scenarios.scenario import Scenario

_MAX_STEPS = 30  # of a request that states no limit
_CALL_TOKENS = 20  # of one call in the model's answer
_ERROR_TOKENS = 20  # of the result of a call that was refused
_RESULT_TOKENS = 60
_DEFAULT_RESULTS = 5


@dataclass(frozen=True)
class ServerToolRun:
    """What a request's server tools did.

    Attributes:
        answers: The answers of the model, each with its own prompt.
        carried_tokens: Prompt tokens of the answers together, beyond the request's own: calls and results so far.
        call_tokens: Completion tokens of the calls.
        requested: Calls of the model that OpenRouter ran or refused.
        executed: Those that it ran.
        searches: Web searches, also those of the model's own provider.
        native_searches: Web searches of the model's own provider, which its price list charges.
        fees: The fees of the calls that OpenRouter ran, in USD.
        annotations: The pages found, as the answer cites them.
    """

    answers: int = 1
    carried_tokens: int = 0
    call_tokens: int = 0
    requested: int = 0
    executed: int = 0
    searches: int = 0
    native_searches: int = 0
    fees: Decimal = Decimal(0)
    annotations: tuple[dict[str, Any], ...] = ()

    def prompt_tokens(self, request_tokens: int) -> int:
        """Return the prompt tokens of all answers together."""
        return self.answers * request_tokens + self.carried_tokens


NO_SERVER_TOOLS = ServerToolRun()


def check_server_tools(conversation: Conversation) -> None:
    """Check the offered server tools and the limit of their loop.

    Raises:
        RequestError: 400 with the first fault.
    """
    for tool in conversation.server_tools:
        name, parameters = str(tool.get("type")), tool.get("parameters") or {}
        if name not in PARAMETERS:
            raise RequestError(400, f"unknown server tool {name!r}")
        for key, value in parameters.items():
            kind = PARAMETERS[name].get(key)
            if kind is None or not isinstance(value, kind):
                raise RequestError(400, f"{name}: invalid parameter {key}={value!r}")
        if not has_engine(name, parameters.get("engine", AUTO)):
            raise RequestError(400, f"{name}: unknown engine {parameters['engine']!r}")
        if parameters.get("allowed_domains") and (
            parameters.get("excluded_domains") or parameters.get("blocked_domains")
        ):
            raise RequestError(400, f"{name}: allowed_domains cannot be used with others")
    _max_steps(conversation)


def run_server_tools(conversation: Conversation, scenario: Scenario, model: Model) -> ServerToolRun:
    """Return what the offered server tools do for an answer."""
    steps = list(_steps(conversation, scenario))
    if not steps:
        return NO_SERVER_TOOLS
    runner = _Runner(scenario, model)
    carried, total = 0, 0
    for calls in steps:
        carried += sum(_CALL_TOKENS + runner.call(tool) for tool in calls)
        total += carried
    return runner.result(answers=len(steps) + 1, carried_tokens=total)


def _steps(conversation: Conversation, scenario: Scenario) -> Iterator[list[dict[str, Any]]]:
    """Yield the calls of each step, up to the request's limit of steps."""
    calls = [tool for tool in conversation.server_tools for _ in range(_uses(tool, conversation, scenario))]
    if scenario.flag("together"):
        longest = (conversation.max_tokens or 10**6) // _CALL_TOKENS
        steps = [calls[:longest]] if calls else []
    else:
        steps = [[call] for call in calls]
    yield from steps[: _max_steps(conversation)]


def _uses(tool: dict[str, Any], conversation: Conversation, scenario: Scenario) -> int:
    is_default = scenario.name == "default" and tool["type"] == WEB_SEARCH and not conversation.tool_results
    return scenario.number("uses", int(is_default))


def _max_steps(conversation: Conversation) -> int:
    """Return the request's limit of steps.

    Raises:
        RequestError: 400 for a condition that is not documented.
    """
    conditions = conversation.body.get("stop_server_tools_when")
    if conditions is None:
        return _MAX_STEPS
    if not isinstance(conditions, list) or not conditions:
        raise RequestError(400, "stop_server_tools_when must be a list of conditions")
    counts = [_MAX_STEPS]
    for each in conditions:
        if each.get("type") != "step_count_is" or not isinstance(each.get("step_count"), int):
            raise RequestError(400, f"unknown condition in stop_server_tools_when: {each!r}")
        counts.append(each["step_count"])
    return min(counts)


class _Runner:
    """Runs the calls of one request."""

    def __init__(self, scenario: Scenario, model: Model) -> None:
        self._result_tokens = scenario.number("result_tokens", _RESULT_TOKENS)
        self._cited = scenario.number("cited", 0)
        self._has_native = bool(model.pricing.get("web_search"))
        self._calls = 0
        self._uses: Counter[str] = Counter()
        self._results = 0
        self._native = 0
        self._fees = Decimal(0)
        self._annotations: list[dict[str, Any]] = []

    def call(self, tool: dict[str, Any]) -> int:
        """Run a call, or refuse it; return the tokens of its result."""
        name, parameters = tool["type"], tool.get("parameters") or {}
        engine = self._engine(parameters)
        self._calls += 1
        if self._uses[name] >= parameters.get("max_uses", _MAX_STEPS):
            return _ERROR_TOKENS
        self._uses[name] += 1
        self._native += engine == NATIVE
        self._fees += call_price(name, engine)
        if name == WEB_FETCH:
            return self._result_tokens
        left = parameters.get("max_total_results", 50) - self._results
        count = min(int(parameters.get("max_results", _DEFAULT_RESULTS)), int(left))
        for _ in range(count):
            self._cite(parameters)
        return count * self._result_tokens

    def result(self, *, answers: int, carried_tokens: int) -> ServerToolRun:
        """Return what the calls did together."""
        executed = sum(self._uses.values())
        return ServerToolRun(
            answers=answers,
            carried_tokens=carried_tokens,
            call_tokens=self._calls * _CALL_TOKENS,
            requested=self._calls - self._native,
            executed=executed - self._native,
            searches=self._uses[WEB_SEARCH],
            native_searches=self._native,
            fees=self._fees,
            annotations=tuple(self._annotations),
        )

    def _engine(self, parameters: Mapping[str, Any]) -> str:
        engine = str(parameters.get("engine", AUTO))
        if engine != AUTO:
            return engine
        return NATIVE if self._has_native else FALLBACK

    def _cite(self, parameters: Mapping[str, Any]) -> None:
        self._results += 1
        domain = (parameters.get("allowed_domains") or ["example.com"])[0].removeprefix("*.")
        citation = {
            "url": f"https://{domain}/pages/{self._results}",
            "title": f"Page {self._results}",
            "start_index": 0,
            "end_index": self._cited,
            "content": f"What page {self._results} says.",
        }
        self._annotations.append({"type": "url_citation", "url_citation": citation})
