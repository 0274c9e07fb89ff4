"""What a test can turn on a running sandbox."""

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass
class SandboxSettings:
    """The sandbox's settings; `POST /_sandbox/settings` changes any of them.

    Attributes:
        generation_delay_ms: How long after its end a generation's record answers 404.
        cancelled_generation_delay_ms: The same for cancelled generations (a minute on the real one).
        record_endpoint: How an upstream without generation records answers `/generation`, by a name of
            `malformed.ABSENT`; empty: as OpenRouter does.
        usage_chunk: Shape of the usage chunk's choices: "repeat" the finish reason, "null" or "empty".
        model_name: Served model as its "alias" (the listed id) or as the dated "slug".
        comments: How many `: OPENROUTER PROCESSING` lines open a stream.
        first_delay_ms: Wait between headers and first chunk, where the scenario says nothing.
        delay_ms: Wait between chunks, where the scenario says nothing.
        record_requests: Whether `/_sandbox/requests` keeps what arrives.
        strict: Providers whose rules on messages are enforced: "openai", "anthropic" and "mistral", by commas.
    """

    generation_delay_ms: int = 300
    cancelled_generation_delay_ms: int = 1000
    record_endpoint: str = ""
    usage_chunk: str = "repeat"
    model_name: str = "alias"
    comments: int = 1
    first_delay_ms: int = 0
    delay_ms: int = 0
    record_requests: bool = True
    strict: str = ""

    def change(self, values: dict[str, Any]) -> None:
        """Set several at once; raises ValueError for an unknown name or a value of another type."""
        kinds = {field.name: type(field.default) for field in fields(self)}
        for name, value in values.items():
            if name not in kinds:
                raise ValueError(f"unknown setting {name!r}; known: {', '.join(kinds)}")
            if type(value) is not kinds[name]:
                raise ValueError(f"setting {name!r} takes a {kinds[name].__name__}")
        for name, value in values.items():
            setattr(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        """Every setting by name."""
        return asdict(self)

    def reset(self) -> None:
        """Back to the defaults."""
        self.change(asdict(SandboxSettings()))
