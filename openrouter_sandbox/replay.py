"""Replay of recorded responses, byte for byte, billed by the usage that they contain."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from openrouter_sandbox.accounts import iso
from openrouter_sandbox.billing.generation import BillingState, new_id
from openrouter_sandbox.billing.generation_records import generation_record
from openrouter_sandbox.billing.invoice import Line
from openrouter_sandbox.conversation import Conversation
from openrouter_sandbox.decimal_json import loads
from openrouter_sandbox.models.catalogue import Catalogue
from openrouter_sandbox.models.pricing import Counts, charge
from openrouter_sandbox.scenarios.scenario import Scenario, ScenarioError
from openrouter_sandbox.streaming.chunk_encoder import EVENT_STREAM, JSON

_ERROR_STATUS = re.compile(r"err_(\d{3})")


@dataclass(frozen=True)
class Recording:
    """A recorded response; the status is in the name of an error's file: `err_429_upstream.json`."""

    name: str
    data: bytes

    @classmethod
    def read(cls, folder: Path | None, name: str) -> "Recording":
        """Read a recording by its file name.

        Raises:
            ScenarioError: There is no such recording.
        """
        path = (folder / Path(name).name) if folder else None  # the bare name, so that no path leads out of the folder
        if path is None or not path.is_file():
            raise ScenarioError(f"no recording {name!r} in {folder or 'the sandbox (started without --recorded)'}")
        return cls(path.name, path.read_bytes())

    @property
    def status(self) -> int:
        """The HTTP status."""
        found = _ERROR_STATUS.match(self.name)
        return int(found.group(1)) if found else 200

    @property
    def content_type(self) -> str:
        """The content type, by the file's extension."""
        return EVENT_STREAM if self.name.endswith(".sse") else JSON

    @property
    def bodies(self) -> Iterator[dict[str, Any]]:
        """The JSON objects of the response: a stream's chunks, or the single body."""
        if self.content_type == JSON:
            yield loads(self.data)
            return
        for line in self.data.splitlines():
            if line.startswith(b"data: {"):
                yield loads(line.removeprefix(b"data: "))

    @property
    def parts(self) -> list[bytes]:
        """The bytes to send: a stream event by event, or the whole body."""
        if self.content_type == JSON:
            return [self.data]
        return [event for event in re.split(rb"(?<=\n\n)", self.data) if event]


class ReplayedGeneration:
    """The generation that a recording contains, and its invoice line."""

    def __init__(self, recording: Recording, account: str, conversation: Conversation, scenario: Scenario) -> None:
        bodies = list(recording.bodies)
        usages = [body["usage"] for body in bodies if isinstance(body.get("usage"), dict)]
        self.usage: dict[str, Any] | None = usages[-1] if usages else None
        self._body = next((body for body in bodies if "model" in body), {})
        recorded_id = str(self._body.get("id", ""))
        self.id = recorded_id if recorded_id.startswith("gen-") else new_id()  # a redacted id is not unique
        self._account = account
        self._conversation = conversation
        self._scenario = scenario

    def bill(self, billing: BillingState, catalogue: Catalogue) -> None:
        """Add the invoice line and the generation record; a recording without usage was not billed."""
        if self.usage is None:
            return
        cost = self._cost(catalogue)
        request = self._conversation.body
        line = Line(
            generation_id=self.id,
            key=self._account,
            model=str(self._body.get("model", "")),
            provider=str(self._body.get("provider", "")),
            usage=self.usage,
            cost=cost,
            cancelled=False,
            user=request.get("user"),
            session=request.get("session_id"),
            created=int(time.time()),
            upstream_cost=self._upstream_cost(),
        )
        billing.invoice.add(line)
        delay = self._scenario.number("record_ms", billing.settings.generation_delay_ms)
        billing.records.add(self.id, self._account, delay, self._record(line), self._scenario)

    def _cost(self, catalogue: Catalogue) -> Decimal:
        """Return the recorded cost; for recordings without one, the list price, or 0 for an unlisted model."""
        usage = self.usage or {}
        if "cost" in usage:
            return Decimal(usage["cost"])
        model = catalogue.find(str(self._body.get("model", "")))
        if model is None:
            return Decimal(0)
        counts = Counts(prompt=usage.get("prompt_tokens", 0), completion=usage.get("completion_tokens", 0))
        return charge(model.pricing, counts, datetime.now(UTC)).total

    def _upstream_cost(self) -> Decimal | None:
        usage = self.usage or {}
        cost = (usage.get("cost_details") or {}).get("upstream_inference_cost")
        return Decimal(cost) if usage.get("is_byok") and cost is not None else None

    def _record(self, line: Line) -> dict[str, Any]:
        return generation_record(
            {**line.usage, "cost": line.cost},
            id=line.generation_id,
            model=line.model,
            provider_name=line.provider,
            created_at=iso(line.created),
            streamed=bool(self._conversation.body.get("stream")),
            cancelled=False,
            finish_reason="stop",
            native_finish_reason="stop",
            latency=0,
            generation_time=0,
            external_user=line.user,
            session_id=line.session,
        )
