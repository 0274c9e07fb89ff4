"""Tenants, keys, policies and changes as messages of admin_service.proto."""

import json

from godoty.v1 import admin_service_pb2 as pb

from godoty_service.budget import BudgetWindow
from godoty_service.metering.money import format_usd
from godoty_service.rpc.metering_messages import timestamp
from godoty_service.tenancy.audit import AdminChange
from godoty_service.tenancy.keys import ApiKey
from godoty_service.tenancy.policy import Policy
from godoty_service.tenancy.principal import Scope
from godoty_service.tenancy.tenants import Tenant

SCOPE_NAMES = {scope: f"API_SCOPE_{scope.name}" for scope in Scope}
WINDOW_NAMES = {window: f"BUDGET_WINDOW_{window.name}" for window in BudgetWindow}


def tenant_message(tenant: Tenant) -> pb.Tenant:
    """Convert a tenant."""
    return pb.Tenant(tenant_id=tenant.tenant_id, name=tenant.name, create_time=timestamp(tenant.create_time))


def key_message(key: ApiKey) -> pb.ApiKey:
    """Convert a key."""
    return pb.ApiKey(
        key_id=key.key_id,
        tenant_id=key.tenant_id,
        scopes=[SCOPE_NAMES[scope] for scope in Scope if scope in key.scopes],
        create_time=timestamp(key.create_time),
        expire_time=timestamp(key.expire_time) if key.expire_time else None,
        revoke_time=timestamp(key.revoke_time) if key.revoke_time else None,
        last_use_time=timestamp(key.last_use_time) if key.last_use_time else None,
    )


def policy_message(policy: Policy) -> pb.Policy:
    """Convert a policy."""
    return pb.Policy(
        allowed_models=policy.allowed_models,
        default_model=policy.default_model or "",
        default_fallback_models=policy.default_fallback_models,
        max_output_tokens=policy.max_output_tokens or 0,
        turns_per_minute=policy.turns_per_minute or 0,
        concurrent_turns=policy.concurrent_turns or 0,
        provider_json=json.dumps(policy.provider) if policy.provider else "",
        zero_data_retention=policy.zero_data_retention,
        budgets=[
            pb.Budget(
                window=WINDOW_NAMES[budget.window],
                limit_usd=format_usd(budget.limit),
                hard=budget.hard,
            )
            for budget in policy.budgets
        ],
    )


def change_message(change: AdminChange) -> pb.AdminChange:
    """Convert a change."""
    return pb.AdminChange(
        time=timestamp(change.time),
        by=change.by,
        action=change.action,
        tenant_id=change.tenant_id,
        details_json=change.details,
    )
