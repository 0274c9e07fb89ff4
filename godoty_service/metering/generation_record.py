"""Decodes a generation record: the body of the provider's `GET /generation?id=`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from godoty_service.pricing import money
from godoty_service.pricing.token_usage import ProviderCharge, from_generation

_MAX_NAME = 256  # characters; a longer model, provider or reason is ignored


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRecord:
    """The fields of a record; None means not stated."""

    charge: ProviderCharge
    model: str | None
    provider: str | None
    finish_reason: str | None


def decode_record(body: bytes) -> GenerationRecord:
    """Decode a record.

    Args:
        body: The response's body, of bounded size.

    Raises:
        ValueError: The body is not a JSON object with an object `data`.
    """
    document = money.loads(body)
    data = document.get("data") if isinstance(document, Mapping) else None
    if not isinstance(data, Mapping):
        raise ValueError("not a generation record")  # noqa: TRY004 - the body is wrong, not the argument
    return GenerationRecord(
        charge=from_generation(data),
        model=_name(data.get("model")),
        provider=_name(data.get("provider_name")),
        finish_reason=_name(data.get("finish_reason")),
    )


def _name(value: Any) -> str | None:
    """Return a name that the database accepts, lone surrogates replaced; None for anything else."""
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME:
        return None
    return value.encode("utf-8", "replace").decode()
