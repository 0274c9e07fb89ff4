from collections.abc import Awaitable, Callable

import httpx
import pytest

Ask = Callable[..., Awaitable[httpx.Response]]


async def test_listing_has_prices_as_strings(http: httpx.AsyncClient) -> None:
    """`GET /models` lists more than 400 models with prices as decimal strings."""
    models = {model["id"]: model for model in (await http.get("/models")).json()["data"]}

    assert len(models) > 400
    assert models["openai/gpt-4o-mini"]["pricing"]["prompt"] == "0.00000015"
    assert models["openrouter/auto"]["pricing"]["prompt"] == "-1"


async def test_endpoints_have_prices_of_their_providers(http: httpx.AsyncClient) -> None:
    """A model's endpoints name each provider with its price; the top provider has the list price."""
    body = (await http.get("/models/openai/gpt-4o-mini/endpoints")).json()
    prices = {offer["provider_name"]: offer["pricing"]["prompt"] for offer in body["data"]["endpoints"]}

    assert prices == {"OpenAI": "0.00000015", "Azure": "0.000000165"}
    assert (await http.get("/models/openai/nothing/endpoints")).status_code == 404


@pytest.mark.parametrize(
    ("requested", "served"),
    [
        ("openai/gpt-4o-mini:nitro", "openai/gpt-4o-mini"),
        ("openai/gpt-4o-mini:floor", "openai/gpt-4o-mini"),
        ("openai/gpt-4o-mini:exacto", "openai/gpt-4o-mini"),
        ("z-ai/glm-5.2:free", "z-ai/glm-5.2:free"),
        ("~anthropic/claude-haiku-latest", "anthropic/claude-haiku-4.5"),
        ("openrouter/auto", "openai/gpt-5-mini"),
    ],
)
async def test_variant_alias_and_router_are_served_by_a_listed_model(ask: Ask, requested: str, served: str) -> None:
    """Variants, aliases and routers are served by a concrete model."""
    assert (await ask("hi", model=requested, stream=False)).json()["model"] == served


async def test_model_name_setting_returns_dated_slug(ask: Ask) -> None:
    """`model_name=slug` returns the canonical slug as the served model."""
    response = await ask("@sandbox plain model_name=slug", model="anthropic/claude-haiku-4.5", stream=False)

    assert response.json()["model"] == "anthropic/claude-4.5-haiku-20251001"


async def test_unknown_model_gets_400(ask: Ask) -> None:
    """An unknown model name gets status 400 with OpenRouter's message."""
    response = await ask("hi", model="openai/gpt-nonexistent")

    assert response.status_code == 400
    assert response.json()["error"] == {"message": "openai/gpt-nonexistent is not a valid model ID", "code": 400}


async def test_fallback_serves_second_model(ask: Ask) -> None:
    """`fallback` skips the first model; so does a provider preference that excludes it."""
    fallback = {"model": "openai/gpt-4o-mini", "models": ["x-ai/grok-4.5"], "stream": False}

    assert (await ask("hi", **fallback)).json()["model"] == "openai/gpt-4o-mini"
    assert (await ask("@sandbox fallback", **fallback)).json()["model"] == "x-ai/grok-4.5"
    assert (await ask("hi", provider={"only": ["xai"]}, **fallback)).json()["model"] == "x-ai/grok-4.5"


@pytest.mark.parametrize(
    ("preference", "served"),
    [
        ({"only": ["azure"]}, "Azure"),
        ({"order": ["Azure", "openai"]}, "Azure"),
        ({"ignore": ["openai"]}, "Azure"),
        ({"max_price": {"prompt": 0.15, "completion": "0.6"}}, "OpenAI"),
    ],
)
async def test_provider_preferences_select_endpoint(ask: Ask, preference: dict[str, object], served: str) -> None:
    """`only`, `order`, `ignore` and `max_price` select the provider."""
    assert (await ask("hi", provider=preference, stream=False)).json()["provider"] == served


async def test_preferences_that_exclude_all_endpoints_get_404(ask: Ask) -> None:
    """Preferences that exclude every endpoint get 404 with OpenRouter's message."""
    response = await ask("hi", provider={"max_price": {"prompt": 0.1}})

    assert response.status_code == 404
    assert response.json()["error"]["message"] == "No endpoints found for openai/gpt-4o-mini."
