"""One generation: what was consumed so far, what it costs, and the single line it leaves on the invoice."""

import secrets
import string
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from godoty_service.sandbox.accounts import iso
from godoty_service.sandbox.answer import Answer, reasoning_tokens
from godoty_service.sandbox.catalogue import Endpoint, Model
from godoty_service.sandbox.conversation import Conversation
from godoty_service.sandbox.invoice import Invoice, Line
from godoty_service.sandbox.providers import stops_billing
from godoty_service.sandbox.records import Records, generation_record
from godoty_service.sandbox.scenario import Scenario
from godoty_service.sandbox.settings import SandboxSettings
from godoty_service.sandbox.tariff import Counts, charge
from godoty_service.sandbox.usage import usage_object

_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Books:
    """Where a generation is written down when it ends."""

    invoice: Invoice
    records: Records
    settings: SandboxSettings


def new_id() -> str:
    """A fresh generation id: `gen-<unix>-<20 random letters and digits>`."""
    return f"gen-{int(time.time())}-{''.join(secrets.choice(_ALPHABET) for _ in range(20))}"


class Generation:
    """A generation from its headers to its bill, which is written exactly once.

    Args:
        account: Who pays.
        conversation: The request.
        scenario: How it is answered.
        model: The model that serves.
        endpoint: The provider that serves, with its prices.
        answer: All it would say.
        books: The invoice and the records.
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
        books: Books,
    ) -> None:
        self.id = new_id()
        self.account = account
        self.conversation = conversation
        self.scenario = scenario
        self.model = model
        self.endpoint = endpoint
        self.answer = answer
        self.produced = 0
        self.created = int(time.time())
        self.started = False
        self.billed = False
        self.first_token_at: float | None = None
        self._books = books
        self._started = time.monotonic()

    @property
    def served_name(self) -> str:
        """The `model` of the response: the listed id or the dated slug."""
        form = self.scenario.text("model_name", self._books.settings.model_name)
        return self.model.slug if form == "slug" else self.model.id

    @property
    def is_byok(self) -> bool:
        """Whether the tenant's own provider account pays."""
        return self.scenario.flag("byok")

    def usage(self, tokens: int | None = None) -> dict[str, Any]:
        """The usage object for the first `tokens` of the answer; all of it by default."""
        counts = self._counts(len(self.answer.pieces) if tokens is None else tokens)
        price = charge(self.endpoint.pricing, counts, datetime.fromtimestamp(self.created, UTC))
        usage = usage_object(counts, price, byok=self.is_byok)
        if counts.searches and self.scenario.flag("searches") and self.scenario.text("counter") != "0":
            usage["server_tool_use_details"] = {"web_search_requests": counts.searches}
        return usage

    def _counts(self, tokens: int) -> Counts:
        scenario = self.scenario
        prompt = scenario.number("prompt_tokens", self.conversation.prompt_tokens)
        half = scenario.text("cached_tokens") == "half"
        cached = min(prompt, prompt // 2 if half else scenario.number("cached_tokens"))
        overlap = scenario.flag("overlap") if scenario.has("overlap") else self.endpoint.provider == "Google"
        written = min(prompt if overlap else prompt - cached, scenario.number("write_tokens"))
        return Counts(
            prompt=prompt,
            completion=tokens,
            reasoning=reasoning_tokens(self.answer.pieces[:tokens]),
            cached=cached,
            written=written,
            searches=scenario.number("searches", self._plugin_searches()),
            overlap=overlap,
            surcharge=scenario.decimal("fee"),
        )

    def _plugin_searches(self) -> int:
        """A plugin's search costs its fee, and no counter in the usage shows it."""
        plugins = self.conversation.body.get("plugins") or ()
        return int(self.model.online or any(plugin.get("id") == "web" for plugin in plugins))

    def finish(self) -> dict[str, Any]:
        """Bill the whole answer; returns its usage. The client may leave or stay: the bill stands."""
        usage = self.usage()
        self._settle(usage, cancelled=False, finish_reason=self.answer.finish_reason)
        return usage

    def abort(self, *, finish_reason: str | None = None) -> None:
        """The client has left: bill what its provider bills for an aborted call."""
        tokens = self.produced if stops_billing(self.endpoint.provider) else len(self.answer.pieces)
        self._settle(self.usage(tokens), cancelled=True, finish_reason=finish_reason)

    def fail(self) -> dict[str, Any]:
        """An error ends it: what was produced is billed, and nothing when nothing was. Returns the usage."""
        if self.produced:
            usage = self.usage(self.produced)
            self._settle(usage, cancelled=False, finish_reason="error")
            return usage
        free = Endpoint(self.endpoint.provider, {"prompt": "0", "completion": "0", "web_search": "0"})
        self.endpoint = free  # zero-completion insurance: no output, no charge, and no line
        usage = self.usage(0)
        self._settle(usage, cancelled=False, finish_reason="error", line=False)
        return usage

    def _settle(self, usage: dict[str, Any], *, cancelled: bool, finish_reason: str | None, line: bool = True) -> None:
        if self.billed:
            return
        self.billed = True
        if line:
            self._books.invoice.add(self._line(usage, cancelled=cancelled))
        settings = self._books.settings
        delay = settings.cancelled_generation_delay_ms if cancelled else settings.generation_delay_ms
        record = self._record(usage, cancelled=cancelled, finish_reason=finish_reason)
        self._books.records.add(self.id, self.account, self.scenario.number("record_ms", delay), record, self.scenario)

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
