"""Validates OpenRouter's provider routing preferences of a policy: known fields only, each of its type."""

import json
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

_LARGEST = 8 * 1024  # characters

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._/+-]{0,63}$")]
_Names = Annotated[list[_Name], Field(max_length=64)]
_Order = Literal["price", "throughput", "latency", "exacto"]
_Quantization = Literal[
    "int4", "int8", "fp4", "mxfp4", "nvfp4", "fp6", "fp8", "mxfp8", "fp16", "bf16", "fp32", "unknown"
]
_Bound = Annotated[float, Field(ge=0, le=1e9)]


def _price(value: Any) -> Any:
    """Convert a price to text exactly as written, so that no float is involved."""
    return str(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else value


_Price = Annotated[str, BeforeValidator(_price), Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,12})?$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _MaxPrice(_Strict):
    prompt: _Price | None = None
    completion: _Price | None = None
    request: _Price | None = None
    image: _Price | None = None
    audio: _Price | None = None


class _Percentiles(_Strict):
    p50: _Bound | None = None
    p75: _Bound | None = None
    p90: _Bound | None = None
    p99: _Bound | None = None


class _Sort(_Strict):
    by: _Order | None = None
    partition: Literal["model", "none"] | None = None


class _Preferences(_Strict):
    order: _Names | None = None
    only: _Names | None = None
    ignore: _Names | None = None
    allow_fallbacks: bool | None = None
    require_parameters: bool | None = None
    data_collection: Literal["allow", "deny"] | None = None
    zdr: bool | None = None
    enforce_distillable_text: bool | None = None
    quantizations: Annotated[list[_Quantization], Field(max_length=16)] | None = None
    sort: _Order | _Sort | None = None
    max_price: _MaxPrice | None = None
    preferred_min_throughput: _Bound | _Percentiles | None = None
    preferred_max_latency: _Bound | _Percentiles | None = None


def read_preferences(text: str) -> dict[str, Any] | None:
    """Parse preferences, or return None if the text is empty. Prices become decimal text.

    Raises:
        ValueError: OpenRouter does not accept it as `provider`; the text names the field and its fault.
    """
    if not text:
        return None
    if len(text) > _LARGEST:
        raise ValueError(f"must have at most {_LARGEST} characters")
    try:
        fields = json.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise ValueError("must be a JSON object") from error
    if not isinstance(fields, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004 - the text is wrong, not its type
    try:
        return _Preferences.model_validate(fields).model_dump(exclude_none=True) or None
    except ValidationError as error:
        raise ValueError(_describe(error)) from error


def _describe(error: ValidationError) -> str:
    """Return the path and the fault of the first invalid field."""
    first, *_ = error.errors(include_input=False, include_url=False)
    path = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("_", "constrained-", "literal[")))
    return f"{path[:100]}: {first['msg']}"
