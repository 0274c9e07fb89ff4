"""What a tenant may do."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from godoty_service.budget import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a tenant may do. None, empty and False set no bound.

    Attributes:
        allowed_models: Ids, or patterns with `*`.
        default_model: Asked when neither request nor session names one.
        default_fallback_models: Tried when that one cannot answer.
        max_output_tokens: Output tokens of one turn.
        turns_per_minute: Turns that may start in a minute.
        concurrent_turns: Turns that may run at the same time.
        provider: OpenRouter's provider routing preferences, as it takes them.
        zero_data_retention: Only providers that keep nothing.
        budgets: At most one for each window.
    """

    allowed_models: tuple[str, ...] = ()
    default_model: str | None = None
    default_fallback_models: tuple[str, ...] = ()
    max_output_tokens: int | None = None
    turns_per_minute: int | None = None
    concurrent_turns: int | None = None
    provider: dict[str, Any] | None = None
    zero_data_retention: bool = False
    budgets: tuple[Budget, ...] = ()

    def allows(self, model: str) -> bool:
        """Tell whether a model may be asked for."""
        return not self.allowed_models or any(fnmatchcase(model, pattern) for pattern in self.allowed_models)

    @property
    def has_hard_budget(self) -> bool:
        """Each call must have a finite bound, and be reserved before it is made."""
        return any(budget.hard for budget in self.budgets)


NO_POLICY = Policy()
