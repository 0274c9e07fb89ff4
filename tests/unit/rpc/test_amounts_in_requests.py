"""Amounts in requests: one rule for a turn's cost limit and for a tenant's budgets."""

from decimal import Decimal

import pytest
from godoty.v1 import admin_service_pb2 as admin_pb
from godoty.v1 import agent_service_pb2 as agent_pb
from godoty.v1 import budget_pb2, tenant_pb2
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.errors import InvalidRequest
from godoty_service.rpc.admin import policy_codec
from godoty_service.rpc.conversations.turn_request_codec import parse_turn_request

FINEST = f"0.{'0' * 24}1"
REFUSED = (f"0.{'0' * 25}1", "1000000.0000001", "1000001", "9" * 5000, "1e-3", "-1", "0", "NaN", " 1", "")
ACCEPTED = (FINEST, "1000000", "0.05")


def _max_cost(text: str) -> Decimal | None:
    request = agent_pb.ConverseRequest(text="hi", limits=turn_pb.TurnLimits(max_cost_usd=text))
    return parse_turn_request(request, catalogue=None, max_text_bytes=100).max_cost


def _budget(text: str) -> Decimal:
    budget = budget_pb2.Budget(window=budget_pb2.BUDGET_WINDOW_DAY, limit_usd=text)
    _, change = policy_codec.parse_policy_change(
        admin_pb.UpdatePolicyRequest(tenant_id="t", policy=tenant_pb2.Policy(budgets=[budget]))
    )
    return change.policy.budgets[0].limit


@pytest.mark.parametrize("text", REFUSED)
def test_amount_outside_the_rule_is_refused(text: str) -> None:
    """More than 25 decimals, above a million dollars, not a plain decimal, or empty: the error names the field."""
    with pytest.raises(InvalidRequest) as turn:
        _max_cost(text)
    with pytest.raises(InvalidRequest) as budget:
        _budget(text)

    assert [each.field for each in turn.value.violations] == ["limits.max_cost_usd"]
    assert [each.field for each in budget.value.violations] == ["policy.budgets[0].limit_usd"]


@pytest.mark.parametrize("text", ACCEPTED)
def test_amount_within_the_rule_is_exact(text: str) -> None:
    """The finest and the largest amount are accepted unchanged."""
    assert _max_cost(text) == _budget(text) == Decimal(text)
