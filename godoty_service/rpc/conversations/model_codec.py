"""Converts the catalogue to messages of model.proto."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from godoty.v1 import model_pb2 as pb

from godoty_service.aio.cooperative import yielding_batches
from godoty_service.pricing.abilities import Abilities
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.pricing.money import format_usd
from godoty_service.pricing.price_sources import priced_model
from godoty_service.pricing.unit_prices import UnitPrices
from godoty_service.tenancy.auth import KeyLimits
from godoty_service.tenancy.policies import Policy

_UNKNOWN = Abilities()


async def allowed_models(
    catalogue: Catalogue, *permissions: Policy | KeyLimits, after: str = "", limit: int
) -> list[str]:
    """Return the ids, in order, of the first `limit` models after an id that all of some permissions allow."""
    found: list[str] = []
    async for some in yielding_batches(sorted(each for each in catalogue.models if each > after)):
        found += [each for each in some if all(permission.allows(each) for permission in permissions)]
        if len(found) >= limit:
            break
    return found[:limit]


async def model_messages(catalogue: Catalogue, model_ids: Sequence[str], *, now: datetime) -> list[pb.Model]:
    """Convert listed models, of which there may be hundreds."""
    return [_model(catalogue, each, now) async for some in yielding_batches(model_ids) for each in some]


def catalogue_state(catalogue: Catalogue | None, *, age: float | None, stale_after: timedelta) -> pb.CatalogueState:
    """Return the state of a catalogue; an upstream without a listing has none.

    Args:
        catalogue: The catalogue in force.
        age: The seconds since the provider confirmed it.
        stale_after: The age from which on it is stale.
    """
    if catalogue is None or not catalogue.is_listed or age is None:
        return pb.CATALOGUE_STATE_MISSING
    return pb.CATALOGUE_STATE_STALE if age > stale_after.total_seconds() else pb.CATALOGUE_STATE_CURRENT


def _model(catalogue: Catalogue, model_id: str, now: datetime) -> pb.Model:
    charged = priced_model(catalogue, model_id, at=now) or catalogue.models[model_id]
    abilities = catalogue.abilities.get(model_id, _UNKNOWN)
    return pb.Model(
        model_id=model_id,
        display_name=abilities.name,
        alias_of=charged.id if charged.id != model_id else "",
        prices=_prices(charged.prices.effective(at=now, prompt_tokens=0)),
        prices_vary=bool(charged.prices.overrides),
        context_length=charged.context_length,
        max_output_tokens=charged.max_completion_tokens,
        input_modalities=abilities.inputs,
        output_modalities=abilities.outputs,
        tools=abilities.tools,
        reasoning=None if abilities.tools is None and not charged.reasons else charged.reasons,
        structured_output=abilities.structured_output,
    )


def _prices(prices: UnitPrices) -> pb.ModelPrices:
    return pb.ModelPrices(
        input_usd=format_usd(prices.prompt),
        output_usd=format_usd(prices.completion),
        cache_read_usd=format_usd(prices.cache_read_price()),
        cache_write_usd=format_usd(prices.input_cache_write),
        audio_input_usd=format_usd(prices.audio),
        audio_cache_read_usd=format_usd(prices.input_audio_cache),
        audio_output_usd=format_usd(prices.audio_output),
        image_output_usd=format_usd(prices.image_output),
        request_usd=format_usd(prices.request),
        web_search_usd=format_usd(prices.web_search),
        uncounted_fees=prices.uncounted_fees,
    )
