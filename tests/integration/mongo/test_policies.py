"""Policies as the database has them."""

from decimal import Decimal

from bson.decimal128 import Decimal128

from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.mongo.client import Database
from godoty_service.tenancy.policies import Policies, Policy


async def test_budget_of_a_later_build_does_not_hide_the_others(database: Database) -> None:
    """A window that this build does not know is left out; the tenant's other budgets hold."""
    policies = database.collection("policies")
    known = Budget(window=BudgetWindow.DAY, limit=Decimal(5), hard=True)
    await Policies(policies).set("tenant", Policy(budgets=(known,)))
    week = {"window": "week", "limit": Decimal128("9"), "hard": True}
    await policies.update_one({"_id": "tenant"}, {"$push": {"budgets": week}})

    assert await Policies(policies).budgets("tenant") == (known,)
