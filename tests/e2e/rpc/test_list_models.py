"""ListModels: what a tenant may use, with exact prices and abilities, and the state of the catalogue."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import model_pb2

import openrouter_sandbox
from godoty_service.bootstrap.components import open_components
from godoty_service.pricing import stored_catalogues
from godoty_service.pricing.abilities import Abilities
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.tenancy.api_keys import ApiKeyTerms
from godoty_service.tenancy.auth import KeyLimits, Scope
from godoty_service.tenancy.policies import Policy
from tests.conftest import Start
from tests.support.caller import Caller, failure_of
from tests.support.invoking import invoke
from tests.support.service import Service, format_amount

LISTED: list[dict[str, Any]] = json.loads(
    (Path(openrouter_sandbox.__file__).parent / "data/models.json").read_text(), parse_float=Decimal
)["data"]


async def all_models(caller: Caller, **fields: Any) -> list[model_pb2.Model]:
    """Read all pages."""
    found: list[model_pb2.Model] = []
    token = ""
    while True:
        page = await caller.call("ListModels", pb.ListModelsRequest(page_token=token, **fields))
        found += page.models
        if not (token := page.next_page_token):
            return found


async def allow(service: Service, *patterns: str) -> None:
    """Allow models by patterns, before the server has read the tenant's policy."""
    async with open_components(service.backends.settings(service.database.name)) as components:
        await components.tenancy.policies.set(service.tenant_id, Policy(allowed_models=patterns))


async def test_pages_have_each_model_once_by_id(caller: Caller) -> None:
    """With any page size: those of the provider's list."""
    ids = sorted(each["id"] for each in LISTED)
    for size in (0, 7, 500):
        assert [each.model_id for each in await all_models(caller, page_size=size)] == ids
    first = await caller.call("ListModels", pb.ListModelsRequest())
    assert len(first.models) == 100
    assert first.catalogue_state == model_pb2.CATALOGUE_STATE_CURRENT
    assert first.catalogue_time.seconds > 1_700_000_000


async def test_model_has_its_prices_and_abilities(caller: Caller) -> None:
    """Prices are exact decimals; what the list does not state is unset."""
    models = {each.model_id: each for each in await all_models(caller)}
    for listed in LISTED:
        if "alias_target" in listed or "overrides" in listed["pricing"]:
            continue
        model, pricing = models[listed["id"]], listed["pricing"]
        for field, key in (("input_usd", "prompt"), ("output_usd", "completion"), ("web_search_usd", "web_search")):
            price = Decimal(pricing[key]) if key in pricing else None
            if price is None or price < 0:
                assert not model.prices.HasField(field)
            else:
                assert getattr(model.prices, field) == format_amount(price)
        parameters = listed["supported_parameters"]
        assert (model.tools, model.structured_output) == ("tools" in parameters, "structured_outputs" in parameters)
        assert model.display_name == listed["name"]
        assert list(model.input_modalities) == listed["architecture"]["input_modalities"]
        assert list(model.output_modalities) == listed["architecture"]["output_modalities"]
        assert not model.prices_vary
    mini = models["openai/gpt-4o-mini"]
    assert (mini.context_length, mini.max_output_tokens, mini.reasoning) == (128_000, 16_384, False)
    assert mini.HasField("reasoning")
    aliases = [each for each in LISTED if "alias_target" in each]
    assert {models[each["id"]].alias_of for each in aliases} <= models.keys()
    assert all(models[each["id"]].prices == models[models[each["id"]].alias_of].prices for each in aliases)
    assert any(each.prices_vary for each in models.values())


async def test_policy_selects_the_models(service: Service, caller: Caller, other_tenant: Caller) -> None:
    """Ids and patterns; each listed model may be requested, and another tenant's list is another."""
    await allow(service, "openai/gpt-4o*", "z-ai/glm-5.2:free", "none/*")
    found = [each.model_id for each in await all_models(caller, page_size=2)]
    pages = await caller.call("ListModels", pb.ListModelsRequest(page_size=2))

    assert found == sorted(
        each["id"] for each in LISTED if each["id"].startswith("openai/gpt-4o") or each["id"] == "z-ai/glm-5.2:free"
    )
    assert (await caller.converse("hi", model=found[-1])).finished
    assert len(await all_models(other_tenant)) == len(LISTED)
    foreign = other_tenant.call("ListModels", pb.ListModelsRequest(page_token=pages.next_page_token))
    assert (await failure_of(foreign)).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_key_lists_the_models_that_policy_and_key_allow(
    service: Service, caller: Caller, connect: Callable[[Service], Caller]
) -> None:
    """A key's own models narrow the policy's; other keys of the tenant list all that the policy allows."""
    await allow(service, "openai/gpt-4o*")
    async with open_components(service.backends.settings(service.database.name)) as components:
        keys, limits = components.tenancy.api_keys, KeyLimits(models=("*-mini", "z-ai/*"))
        terms = ApiKeyTerms(scopes=frozenset({Scope.CONVERSE}), limits=limits)
        text = await keys.insert(keys.new(service.tenant_id, terms))
    narrow = connect(service.with_key(text))

    assert [each.model_id for each in await all_models(narrow, page_size=1)] == ["openai/gpt-4o-mini"]
    assert len(await all_models(caller)) > 1


async def test_page_is_limited_in_bytes(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends where the next model would exceed the limit, and the pages have all models, also with long names."""
    monkeypatch.setattr(stored_catalogues, "_last_parsed", stored_catalogues._last_parsed.__wrapped__)
    monkeypatch.setattr(Abilities, "parse", lambda _: Abilities(name="n" * 200))
    caller = connect(await serve(page_bytes=65_536))
    first = await caller.call("ListModels", pb.ListModelsRequest(page_size=500))

    assert 50 < len(first.models) < len(LISTED)
    assert first.ByteSize() < 66_000
    assert len(await all_models(caller, page_size=500)) == len(LISTED)


async def test_catalogue_is_stale_or_missing(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that the provider has not confirmed for three intervals is stale; without a list there are no models."""
    caller = connect(await serve(catalogue_refresh=100.0))
    states = []
    for age in (0.0, 299.0, 301.0):
        monkeypatch.setattr(PricingOracle, "age", lambda _, age=age: age)
        page = await caller.call("ListModels", pb.ListModelsRequest())
        states.append((page.catalogue_state, len(page.models)))
    monkeypatch.undo()
    monkeypatch.setattr(PricingOracle, "refresh", _refused)
    missing = await connect(await serve()).call("ListModels", pb.ListModelsRequest())

    current, stale = model_pb2.CATALOGUE_STATE_CURRENT, model_pb2.CATALOGUE_STATE_STALE
    assert states == [(current, 100), (current, 100), (stale, 100)]
    assert missing == pb.ListModelsResponse(catalogue_state=model_pb2.CATALOGUE_STATE_MISSING)


async def _refused(_: PricingOracle) -> bool:
    return False


def test_models_prints_what_a_tenant_may_use(service: Service) -> None:
    """The command has the values of ListModels, as a table and as JSON."""
    service.backends.run(allow(service, "openai/gpt-4o-mini"))
    printed = invoke(service, "models", service.tenant_id, "--format", "json")
    (row,) = json.loads(printed[printed.index("[") :])
    table = invoke(service, "models", service.tenant_id)

    assert (row["model_id"], row["input_usd"], row["output_usd"]) == ("openai/gpt-4o-mini", "0.00000015", "0.0000006")
    assert (row["context_length"], row["tools"], row["reasoning"], row["alias_of"]) == (128_000, "yes", "no", None)
    assert "openai/gpt-4o-mini" in table
    assert f"1 of {len(LISTED)} models" in table
