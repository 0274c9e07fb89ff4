from collections.abc import Awaitable, Callable

import httpx
import pytest

Ask = Callable[..., Awaitable[httpx.Response]]


async def test_the_listing_is_real_and_its_prices_are_strings(http: httpx.AsyncClient) -> None:
    """`GET /models` lists hundreds of models with decimal strings as prices."""
    models = {model["id"]: model for model in (await http.get("/models")).json()["data"]}

    assert len(models) > 400
    assert models["openai/gpt-4o-mini"]["pricing"]["prompt"] == "0.00000015"
    assert models["openrouter/auto"]["pricing"]["prompt"] == "-1"


async def test_endpoints_have_their_own_prices(http: httpx.AsyncClient) -> None:
    """A model's endpoints name each provider with its price; the top one's is the list price."""
    body = (await http.get("/models/openai/gpt-4o-mini/endpoints")).json()
    prices = {offer["provider_name"]: offer["pricing"]["prompt"] for offer in body["data"]["endpoints"]}

    assert prices == {"OpenAI": "0.00000015", "Azure": "0.000000165"}
    assert (await http.get("/models/openai/nothing/endpoints")).status_code == 404


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("openai/gpt-4o-mini:nitro", "openai/gpt-4o-mini"),
        ("openai/gpt-4o-mini:floor", "openai/gpt-4o-mini"),
        ("openai/gpt-4o-mini:exacto", "openai/gpt-4o-mini"),
        ("z-ai/glm-5.2:free", "z-ai/glm-5.2:free"),
        ("~anthropic/claude-haiku-latest", "anthropic/claude-haiku-4.5"),
        ("openrouter/auto", "openai/gpt-5-mini"),
    ],
)
async def test_every_kind_of_name_finds_its_model(ask: Ask, asked: str, served: str) -> None:
    """Variants, aliases and routers are served by a concrete model."""
    assert (await ask("hi", model=asked, stream=False)).json()["model"] == served


async def test_the_served_model_may_be_named_by_its_dated_slug(ask: Ask) -> None:
    """`model_name=slug` answers with the canonical slug."""
    response = await ask("@sandbox plain model_name=slug", model="anthropic/claude-haiku-4.5", stream=False)

    assert response.json()["model"] == "anthropic/claude-4.5-haiku-20251001"


async def test_an_unknown_model_is_refused_as_recorded(ask: Ask) -> None:
    """A name that is no model gets status 400 and OpenRouter's words."""
    response = await ask("hi", model="openai/gpt-nonexistent")

    assert response.status_code == 400
    assert response.json()["error"] == {"message": "openai/gpt-nonexistent is not a valid model ID", "code": 400}


async def test_fallback_serves_the_second_model(ask: Ask) -> None:
    """`fallback` skips the first model; so does a provider preference that rules it out."""
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
async def test_provider_preferences_are_honoured(ask: Ask, preference: dict[str, object], served: str) -> None:
    """`only`, `order`, `ignore` and `max_price` choose the provider."""
    assert (await ask("hi", provider=preference, stream=False)).json()["provider"] == served


async def test_nobody_may_serve(ask: Ask) -> None:
    """Preferences that leave no endpoint get 404."""
    response = await ask("hi", provider={"max_price": {"prompt": 0.1}})

    assert response.status_code == 404
    assert response.json()["error"]["message"] == "No endpoints found for openai/gpt-4o-mini."
