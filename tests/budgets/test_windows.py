"""A day's budget at its end, on servers whose clocks differ."""

from datetime import timedelta
from decimal import Decimal

import pytest

from godoty_service.errors import BudgetReserved
from tests.budgets.conftest import NOON, Till


async def test_a_server_whose_clock_is_behind_cannot_spend_a_day_again(till: Till) -> None:
    """Where another one has begun to count the next day, nobody knows what is left of this one: later, it says."""
    evening = NOON + timedelta(hours=11, minutes=59, seconds=59)
    till.now = evening
    await till.spending.settle_elsewhere(await till.close(await till.open(reserved=True), Decimal(900)))
    till.pass_(2)
    await till.spending.settle_elsewhere(await till.close(await till.open(reserved=True), Decimal(1)))
    till.now = evening

    with pytest.raises(BudgetReserved) as refused:
        await till.open(reserved=True)

    assert refused.value.retry_after is not None
    till.pass_(2)
    await till.open(reserved=True)
