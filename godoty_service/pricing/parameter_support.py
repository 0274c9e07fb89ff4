"""Which requests go only to providers that support all of their parameters.

By default OpenRouter hands a provider the parameters that it supports, and ignores the others: it would answer as if an
agent had no tools. With `provider.require_parameters` such a provider does not serve.
"""

from collections.abc import Mapping
from typing import Any, Final

from godoty_service.errors import ModelUnavailable, ProviderError
from godoty_service.pricing.abilities import REQUEST_PARAMETERS

_NEEDED: Final = frozenset({"tools", "tool_choice", "stop"})  # without these, an answer is another one
_REQUIRE: Final = "require_parameters"
_NO_PROVIDER: Final = "404"


class ParameterSupport:
    """Requires the support of parameters where a request needs it, and where that leaves a provider."""

    def __init__(self, supported: frozenset[str]) -> None:
        """Create it.

        Args:
            supported: The parameters that the model has support for. A request that has others goes to any provider:
                required, they would leave none. Empty: nothing is required.
        """
        self._supported = supported

    def routing(self, request: Mapping[str, Any], preferences: Mapping[str, Any]) -> dict[str, Any]:
        """Return the routing preferences of a request: those that are given, and the requirement if it needs it.

        Args:
            request: The request, with all its parameters.
            preferences: The preferences of the agent and the policy.
        """
        carried = REQUEST_PARAMETERS & request.keys()
        is_required = bool(carried & _NEEDED) and carried <= self._supported
        return {**preferences, _REQUIRE: True} if is_required else dict(preferences)

    def give_up(self, request: Mapping[str, Any], error: ProviderError) -> bool:
        """Require nothing from now on if the requirement left no provider; return whether that may be so.

        A model's listing has what its providers support together: one alone need not support all of it.

        Args:
            request: The request, as it was sent.
            error: Why it failed.
        """
        was_required = bool(self._supported) and (request.get("provider") or {}).get(_REQUIRE) is True
        is_alone = isinstance(error, ModelUnavailable) and error.metadata.get("provider_code") == _NO_PROVIDER
        if not (was_required and is_alone):
            return False
        self._supported = frozenset()
        return True
