"""A generation: tokens produced so far, their cost, and its single invoice line."""

import secrets
import string
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from openrouter_sandbox.accounts import iso
from openrouter_sandbox.answers.answer import Answer, reasoning_tokens
from openrouter_sandbox.answers.server_tools import NO_SERVER_TOOLS, run_server_tools
from openrouter_sandbox.billing.generation_records import GenerationRecords, generation_record
from openrouter_sandbox.billing.invoice import Invoice, Line
from openrouter_sandbox.billing.usage import usage_object
from openrouter_sandbox.conversation import Conversation
from openrouter_sandbox.decimal_json import EXACT
from openrouter_sandbox.media import file_fee, media_tokens
from openrouter_sandbox.models.catalogue import Endpoint, Model
from openrouter_sandbox.models.pricing import Counts, charge, search_fee
from openrouter_sandbox.models.providers import stops_billing
from openrouter_sandbox.scenarios.scenario import Scenario
from openrouter_sandbox.settings import SandboxSettings

_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True)
class BillingState:
    """The stores that receive a generation's bill when it ends, and the settings."""

    invoice: Invoice
    records: GenerationRecords
    settings: SandboxSettings


def new_id() -> str:
    """Return a new generation id: `gen-<unix>-<20 random letters and digits>`."""
    return f"gen-{int(time.time())}-{''.join(secrets.choice(_ALPHABET) for _ in range(20))}"


class Generation:
    """A generation from its response headers to its bill, which is written exactly once.

    Args:
        account: The account to charge.
        conversation: The request.
        scenario: The scenario that shapes the response.
        model: The model that serves.
        endpoint: The provider that serves, with its prices.
        answer: The complete answer, before any abort.
        billing: The invoice, the generation records and the settings.
        with_metadata: Whether the request asks for `openrouter_metadata`.
    """

    def __init__(
        self,
        *,
        account: str,
        conversation: Conversation,
        scenario: Scenario,
        model: Model,
        endpoint: Endpoint,
        answer: Answer,
        billing: BillingState,
        with_metadata: bool = False,
    ) -> None:
        self.id = new_id()
        self.account = account
        self.conversation = conversation
        self.scenario = scenario
        self.model = model
        self.endpoint = endpoint
        self.answer = answer
        self.server_tools = run_server_tools(conversation, scenario, model)
        self.produced_tokens = 0
        self.created = int(time.time())
        self.started = False
        self.billed = False
        self.first_token_at: float | None = None
        self._billing = billing
        self._with_metadata = with_metadata
        self._started = time.monotonic()

    @property
    def served_name(self) -> str:
        """The `model` of the response: the listed id, or the dated slug if so configured."""
        form = self.scenario.text("model_name", self._billing.settings.model_name)
        return self.model.slug if form == "slug" else self.model.id

    @property
    def is_byok(self) -> bool:
        """Whether the account's own provider key pays (BYOK)."""
        return self.scenario.flag("byok")

    def usage(self, tokens: int | None = None) -> dict[str, Any]:
        """Return the usage object for the first `tokens` of the answer; for the whole answer by default."""
        counts = self._counts(len(self.answer.pieces) if tokens is None else tokens)
        price = charge(self.endpoint.pricing, counts, datetime.fromtimestamp(self.created, UTC))
        usage = usage_object(counts, price, byok=self.is_byok)
        if counts.searches and self.scenario.flag("searches") and self.scenario.text("counter") != "0":
            usage["server_tool_use_details"] = {"web_search_requests": counts.searches}
        return self._with_server_tools(usage)

    def _with_server_tools(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Return a usage object with the counters and the fees of server tools, if any was called."""
        tools = self.server_tools
        if tools.searches or tools.requested:
            details = {"web_search_requests": tools.searches}
            if tools.requested:
                details |= {"tool_calls_requested": tools.requested, "tool_calls_executed": tools.executed}
            usage["server_tool_use_details"] = details
        if tools.requested and self.scenario.text("tool_cost") != "0":
            usage["cost_details"]["server_tool_cost"] = tools.fees
        return usage

    @property
    def openrouter_metadata(self) -> dict[str, Any]:
        """The `openrouter_metadata` of the last chunk, if the request asks for it, with a plugin's fees."""
        if not self._with_metadata:
            return {}
        searches = 0 if self.scenario.has("searches") else self._plugin_searches()
        fee = searches * search_fee(self.endpoint.pricing)
        stages = [{"type": "plugin", "name": "web", "cost_usd": fee}] if searches else []
        if parsed := self._file_fee():
            stages.append({"type": "plugin", "name": "file-parser", "cost_usd": parsed})
        metadata = {
            "requested": self.conversation.body.get("model"),
            "strategy": "direct",
            "region": None,
            "summary": f"available=1, selected={self.endpoint.provider}",
            "attempt": 1,
            "is_byok": self.is_byok,
            "endpoints": {"total": 1, "available": []},
            "pipeline": [{"type": "guardrail", "name": "content-filter"}, *stages],
        }
        return {"openrouter_metadata": metadata}

    def _counts(self, tokens: int) -> Counts:
        scenario = self.scenario
        media, tools = self.conversation.media, self.server_tools
        size = self.conversation.prompt_tokens + media_tokens(self.model.id, media)
        prompt = scenario.number("prompt_tokens", tools.prompt_tokens(size))
        half = scenario.text("cached_tokens") == "half"
        cached = min(prompt, prompt // 2 if half else scenario.number("cached_tokens"))
        overlap = scenario.flag("overlap") if scenario.has("overlap") else self.endpoint.provider == "Google"
        written = min(prompt if overlap else prompt - cached, scenario.number("write_tokens"))
        return Counts(
            prompt=prompt,
            completion=tokens + tools.call_tokens,
            reasoning=reasoning_tokens(self.answer.pieces[:tokens]),
            cached=cached,
            written=written,
            searches=scenario.number("searches", self._plugin_searches()) + tools.native_searches,
            overlap=overlap,
            surcharge=EXACT.add(EXACT.add(scenario.decimal("fee"), self._file_fee()), tools.fees),
        )

    def _file_fee(self) -> Decimal:
        """Return the fee in USD of the plugin that reads the request's files."""
        conversation = self.conversation
        return file_fee(conversation.body, conversation.media, reads_files="file" in self.model.inputs)

    def _plugin_searches(self) -> int:
        """Return the number of plugin searches: they cost a fee and have no counter in the usage."""
        plugins = self.conversation.body.get("plugins") or ()
        return int(self.model.online or any(plugin.get("id") == "web" for plugin in plugins))

    def finish(self) -> dict[str, Any]:
        """Bill the whole answer and return its usage; a later disconnect does not change the bill."""
        usage = self.usage()
        self._bill(usage, cancelled=False, finish_reason=self.answer.finish_reason)
        return usage

    def abort(self, *, finish_reason: str | None = None) -> None:
        """Bill an aborted call by its provider's rule: the tokens produced so far, or the whole answer."""
        tokens = self.produced_tokens if stops_billing(self.endpoint.provider) else len(self.answer.pieces)
        self._bill(self.usage(tokens), cancelled=True, finish_reason=finish_reason)

    def fail(self) -> dict[str, Any]:
        """Bill the tokens produced before an error and return their usage; no tokens, no charge."""
        if self.produced_tokens:
            usage = self.usage(self.produced_tokens)
            self._bill(usage, cancelled=False, finish_reason="error")
            return usage
        free = Endpoint(self.endpoint.provider, {"prompt": "0", "completion": "0", "web_search": "0"})
        self.endpoint = free  # zero-completion insurance: no output, no charge, no invoice line
        self.server_tools = NO_SERVER_TOOLS
        usage = self.usage(0)
        self._bill(usage, cancelled=False, finish_reason="error", line=False)
        return usage

    def _bill(self, usage: dict[str, Any], *, cancelled: bool, finish_reason: str | None, line: bool = True) -> None:
        if self.billed:
            return
        self.billed = True
        if line:
            self._billing.invoice.add(self._line(usage, cancelled=cancelled))
        settings = self._billing.settings
        delay = settings.cancelled_generation_delay_ms if cancelled else settings.generation_delay_ms
        record = self._record(usage, cancelled=cancelled, finish_reason=finish_reason)
        self._billing.records.add(
            self.id, self.account, self.scenario.number("record_ms", delay), record, self.scenario
        )

    def _line(self, usage: dict[str, Any], *, cancelled: bool) -> Line:
        return Line(
            generation_id=self.id,
            key=self.account,
            model=self.model.id,
            provider=self.endpoint.provider,
            usage=usage,
            cost=usage["cost"],
            cancelled=cancelled,
            user=self.conversation.body.get("user"),
            session=self.conversation.body.get("session_id"),
            created=self.created,
            upstream_cost=usage["cost_details"]["upstream_inference_cost"] if self.is_byok else None,
        )

    def _record(self, usage: dict[str, Any], *, cancelled: bool, finish_reason: str | None) -> dict[str, Any]:
        now = time.monotonic()
        return generation_record(
            usage,
            id=self.id,
            model=self.model.slug,
            provider_name=self.endpoint.provider,
            created_at=iso(self.created),
            streamed=bool(self.conversation.body.get("stream")),
            cancelled=cancelled,
            finish_reason=finish_reason,
            native_finish_reason=finish_reason,
            latency=int(((self.first_token_at or now) - self._started) * 1000),
            generation_time=int((now - self._started) * 1000),
            external_user=self.conversation.body.get("user"),
            session_id=self.conversation.body.get("session_id"),
        )
