"""A turn's error in its log, for later readers."""

import pytest

from godoty_service.errors import BudgetReserved, GodotyError, SessionBusy
from godoty_service.tenancy.errors import TenantSuspended
from godoty_service.turns.event_log.codec import error_from_document, error_to_document


@pytest.mark.parametrize(
    "error",
    [
        BudgetReserved("held", quota="budget/day", metadata={"limit_usd": "10", "held_usd": "0.99"}, retry_after=1.0),
        SessionBusy("busy", metadata={"session_id": "talk"}, retry_after=2.0),
        TenantSuspended.of("acme"),
    ],
    ids=["quota", "plain", "of another package"],
)
def test_stored_error_equals_original(error: GodotyError) -> None:
    """Text, metadata, quota and the retry time survive the database."""
    found = error_from_document(error_to_document(error))

    assert type(found) is type(error)
    assert vars(found) == vars(error)
