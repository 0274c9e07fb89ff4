"""The content of a recording, read by a parser that shares nothing with the service."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "data" / "recorded"
_LISTING = Path(__file__).parents[3] / "openrouter_sandbox" / "data" / "models.json"

Document = Mapping[str, Any]

# The path of each counter in a usage object, under the chat API's names and under those of the Responses API.
_COUNTERS = {
    "input_tokens": ("prompt_tokens", "input_tokens"),
    "output_tokens": ("completion_tokens", "output_tokens"),
    "total_tokens": ("total_tokens",),
    "cache_read_tokens": ("prompt_tokens_details.cached_tokens", "input_tokens_details.cached_tokens"),
    "cache_write_tokens": ("prompt_tokens_details.cache_write_tokens", "input_tokens_details.cache_write_tokens"),
    "reasoning_tokens": (
        "completion_tokens_details.reasoning_tokens",
        "output_tokens_details.reasoning_tokens",
    ),
    "audio_input_tokens": ("prompt_tokens_details.audio_tokens",),
    "audio_cache_read_tokens": ("cost_details.input_audio_cache_read_tokens",),
    "audio_output_tokens": ("completion_tokens_details.audio_tokens",),
    "image_output_tokens": ("completion_tokens_details.image_tokens",),
    "video_input_tokens": ("prompt_tokens_details.video_tokens",),
    "web_search_requests": ("server_tool_use_details.web_search_requests", "server_tool_use.web_search_requests"),
    "server_tool_calls": ("server_tool_use_details.tool_calls_executed",),
}


@dataclass(frozen=True)
class ToolUse:
    """A tool that the model called."""

    id: str
    name: str
    input: Any


@dataclass(frozen=True)
class Recording:
    """A recorded answer."""

    name: str

    @cached_property
    def bodies(self) -> list[Document]:
        """Its chunks, or its one body."""
        data = (FOLDER / self.name).read_text("utf-8")
        if not self.name.endswith(".sse"):
            return [json.loads(data, parse_float=Decimal)]
        lines = [line.removeprefix("data: ") for line in data.split("\n") if line.startswith("data: {")]
        return [json.loads(line, parse_float=Decimal) for line in lines]

    @property
    def text(self) -> str:
        """The answer's text."""
        parts = [part for each in self._outputs("message") for part in each["content"]]
        return "".join([part["text"] for part in parts] + [delta.get("content") or "" for delta in self._deltas])

    @property
    def reasoning(self) -> str:
        """The readable part of the reasoning."""
        return "".join(delta.get("reasoning") or "" for delta in self._deltas)

    @property
    def encrypted(self) -> str:
        """The encrypted part of the reasoning."""
        details = [each for delta in self._deltas for each in delta.get("reasoning_details") or []]
        return "".join(each["data"] for each in details if each["type"] == "reasoning.encrypted")

    @property
    def cited(self) -> list[tuple[str, str]]:
        """The address and the title of each web page that it cites."""
        annotations = [each for delta in self._deltas for each in delta.get("annotations") or []]
        pages = [each["url_citation"] for each in annotations if each["type"] == "url_citation"]
        return [(page["url"], page["title"]) for page in pages]

    @property
    def tools(self) -> list[ToolUse]:
        """The tools that it called."""
        calls: dict[int, dict[str, str]] = {}
        for delta in self._deltas:
            for piece in delta.get("tool_calls") or []:
                call = calls.setdefault(piece["index"], {"id": "", "name": "", "arguments": ""})
                call["id"] += piece.get("id") or ""
                call["name"] += piece["function"].get("name") or ""
                call["arguments"] += piece["function"].get("arguments") or ""
        return [ToolUse(each["id"], each["name"], json.loads(each["arguments"])) for _, each in sorted(calls.items())]

    @property
    def finish_reason(self) -> str:
        """The last finish reason; a Responses body has only a status, `completed`."""
        reasons = [choice["finish_reason"] for choice in self._choices if choice["finish_reason"]]
        return str(reasons[-1] if reasons else "stop")

    @property
    def served_model(self) -> str:
        """The model that answered."""
        return str(self.bodies[-1]["model"])

    @property
    def provider(self) -> str | None:
        """The provider that served it."""
        provider: str | None = self.bodies[-1].get("provider")
        return provider

    @property
    def generation_id(self) -> str:
        """The provider's id; a redacted one has no date."""
        return str(self.bodies[0]["id"])

    @property
    def usage(self) -> Document:
        """The usage object."""
        (usage,) = [each["usage"] for each in self.bodies if each.get("usage")]
        found: Document = usage
        return found

    @property
    def counters(self) -> dict[str, int | None]:
        """Each counter of the ledger; None if it was not reported."""
        return {name: _first(self.usage, paths) for name, paths in _COUNTERS.items()}

    @property
    def cost(self) -> Decimal | None:
        """The cost, from the text of the recording; None: it is not reported."""
        return _amount(self.usage.get("cost"))

    @property
    def upstream_cost(self) -> Decimal | None:
        """The charge of the upstream provider."""
        return _amount((self.usage.get("cost_details") or {}).get("upstream_inference_cost"))

    @property
    def _choices(self) -> list[Document]:
        return [choice for body in self.bodies for choice in body.get("choices") or []]

    @property
    def _deltas(self) -> list[Document]:
        return [choice.get("delta") or choice.get("message") or {} for choice in self._choices]

    def _outputs(self, kind: str) -> list[Document]:
        return [each for body in self.bodies for each in body.get("output") or [] if each["type"] == kind]


def listed(model: str) -> bool:
    """Return whether the sandbox's catalogue has a model, by its id or its dated slug."""
    entries = json.loads(_LISTING.read_text("utf-8"))["data"]
    return any(model in (each["id"], each["canonical_slug"]) for each in entries)


def _first(usage: Document, paths: tuple[str, ...]) -> int | None:
    for path in paths:
        *outer, name = path.split(".")
        part = (usage.get(outer[0]) or {}) if outer else usage
        if part.get(name) is not None:
            return int(part[name])
    return None


def _amount(value: Decimal | int | None) -> Decimal | None:
    return None if value is None else Decimal(value)
