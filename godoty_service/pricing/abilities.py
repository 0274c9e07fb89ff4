"""What a model can do, as OpenRouter's listing states it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

# The fields of a request that OpenRouter counts as parameters, as far as the service sends them.
REQUEST_PARAMETERS: Final = frozenset(
    {"temperature", "top_p", "seed", "stop", "reasoning", "max_tokens", "tools", "tool_choice"}
)
_MAX_NAME = 200  # characters
_MAX_MODALITIES = 16
_MAX_MODALITY = 32  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """The name and the abilities of a listed model; empty and None: the listing does not state it.

    Attributes:
        name: The name for people.
        inputs: What a prompt may contain, such as "text" and "image".
        outputs: What an answer may contain.
        tools: It can call tools.
        structured_output: It can answer by a JSON schema.
        parameters: Those of `REQUEST_PARAMETERS` that one of its providers or another supports.
    """

    name: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    tools: bool | None = None
    structured_output: bool | None = None
    parameters: frozenset[str] | None = None

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> "Abilities":
        """Parse an entry of the listing; a field of another type than expected is not stated."""
        name, architecture = entry.get("name"), entry.get("architecture")
        architecture = architecture if isinstance(architecture, Mapping) else {}
        parameters = entry.get("supported_parameters")
        return cls(
            name=_printable(name)[:_MAX_NAME] if isinstance(name, str) else "",
            inputs=_modalities(architecture.get("input_modalities")),
            outputs=_modalities(architecture.get("output_modalities")),
            tools="tools" in parameters if isinstance(parameters, list) else None,
            structured_output="structured_outputs" in parameters if isinstance(parameters, list) else None,
            parameters=_supported(parameters),
        )


def _supported(value: Any) -> frozenset[str] | None:
    return frozenset(each for each in REQUEST_PARAMETERS if each in value) if isinstance(value, list) else None


def _modalities(value: Any) -> tuple[str, ...]:
    words: Iterable[Any] = value[:_MAX_MODALITIES] if isinstance(value, list) else ()
    return tuple(each for each in words if isinstance(each, str) and each.isalnum() and len(each) <= _MAX_MODALITY)


def _printable(text: str) -> str:
    return "".join(each for each in text if each.isprintable())
