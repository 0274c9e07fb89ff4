"""When providers are required to support the parameters of a request."""

from typing import Any

import pytest

from godoty_service.errors import ModelUnavailable, ProviderError, ProviderUnavailable
from godoty_service.pricing.abilities import Abilities
from godoty_service.pricing.parameter_support import ParameterSupport

ALL = frozenset({"temperature", "seed", "stop", "max_tokens", "tools", "tool_choice"})
REQUIRED = {"require_parameters": True}


@pytest.mark.parametrize(
    ("request_fields", "supported", "routing"),
    [
        ({"tools": [1]}, ALL, REQUIRED),
        ({"stop": ["a"]}, ALL, REQUIRED),
        ({"tools": [1], "seed": 1, "max_tokens": 5}, ALL, REQUIRED),
        ({"tools": [1], "seed": 1}, ALL - {"seed"}, {}),
        ({"tools": [1]}, frozenset(), {}),
        ({"temperature": 1.0, "seed": 1}, ALL, {}),
        ({"model": "a/b", "messages": [], "user": "u"}, ALL, {}),
    ],
)
def test_support_is_required_where_an_answer_depends_on_it(
    request_fields: dict[str, Any], supported: frozenset[str], routing: dict[str, Any]
) -> None:
    """By tools and stop texts; not if the model is not known to support all parameters of the request."""
    assert ParameterSupport(supported).routing(request_fields, {}) == routing
    assert ParameterSupport(supported).routing(request_fields, {"sort": "price"}) == {"sort": "price", **routing}


def _unavailable(code: str = "404") -> ProviderError:
    return ModelUnavailable("No provider.", metadata={"provider_code": code})


@pytest.mark.parametrize(
    ("sent", "error", "given_up"),
    [
        (REQUIRED, _unavailable(), True),
        (REQUIRED, _unavailable("400"), False),
        (REQUIRED, ProviderUnavailable("Out of service.", metadata={"provider_code": "503"}), False),
        ({"sort": "price"}, _unavailable(), False),
        (None, _unavailable(), False),
    ],
)
def test_requirement_is_given_up_if_it_leaves_no_provider(
    sent: dict[str, Any] | None,
    error: ProviderError,
    given_up: bool,  # noqa: FBT001 - a case
) -> None:
    """A model's providers may support together what none of them supports alone."""
    support, request = ParameterSupport(ALL), {"tools": [1], **({"provider": sent} if sent is not None else {})}

    assert support.give_up(request, error) is given_up
    assert support.routing(request, {}) == ({} if given_up else REQUIRED)


def test_requirement_of_the_tenant_is_not_given_up() -> None:
    """Nothing is required by the service then."""
    request = {"tools": [1], "provider": REQUIRED}

    assert not ParameterSupport(frozenset()).give_up(request, _unavailable())


@pytest.mark.parametrize(
    ("listed", "parameters"),
    [
        (["tools", "seed", "top_k", 7, None], frozenset({"tools", "seed"})),
        ([], frozenset()),
        (None, None),
        ("tools", None),
    ],
)
def test_listing_states_parameters(listed: Any, parameters: frozenset[str] | None) -> None:
    """Those that requests may have; a listing without them states nothing."""
    assert Abilities.parse({"supported_parameters": listed}).parameters == parameters
