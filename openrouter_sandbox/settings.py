"""The settings of a running sandbox."""

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass
class SandboxSettings:
    """The sandbox's settings; `POST /_sandbox/settings` changes any of them.

    Attributes:
        generation_delay_ms: Time from a generation's end until its record is served; 404 before.
        cancelled_generation_delay_ms: The same for cancelled generations (a minute on OpenRouter).
        record_endpoint: Emulated upstream without generation records, a name of `malformed.ABSENT`; empty serves
            records as OpenRouter does.
        listing: Emulated upstream without prices: in `/models` "unpriced" lists models alone, "missing" is a 404; empty
            lists them as OpenRouter does.
        usage_chunk: Shape of the usage chunk's choices: "repeat" the finish reason, "null" or "empty".
        model_name: Form of the served model's name: "alias" (the listed id) or the dated "slug".
        comments: Number of `: OPENROUTER PROCESSING` lines at the start of a stream.
        first_delay_ms: Default delay between headers and first chunk.
        delay_ms: Default delay between chunks.
        record_requests: Whether requests are retained for `/_sandbox/requests`.
        strict: Comma-separated providers whose message rules are enforced: "openai", "anthropic", "mistral".
    """

    generation_delay_ms: int = 300
    cancelled_generation_delay_ms: int = 1000
    record_endpoint: str = ""
    listing: str = ""
    usage_chunk: str = "repeat"
    model_name: str = "alias"
    comments: int = 1
    first_delay_ms: int = 0
    delay_ms: int = 0
    record_requests: bool = True
    strict: str = ""

    def change(self, values: dict[str, Any]) -> None:
        """Set several settings at once, or none of them on an error.

        Raises:
            ValueError: A name is unknown or a value has the wrong type.
        """
        kinds = {field.name: type(field.default) for field in fields(self)}
        for name, value in values.items():
            if name not in kinds:
                raise ValueError(f"unknown setting {name!r}; known: {', '.join(kinds)}")
            if type(value) is not kinds[name]:
                raise ValueError(f"setting {name!r} takes a {kinds[name].__name__}")
        for name, value in values.items():
            setattr(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        """Return every setting by name."""
        return asdict(self)

    def reset(self) -> None:
        """Restore the defaults."""
        self.change(asdict(SandboxSettings()))
