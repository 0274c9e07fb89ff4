"""Tenant budgets: spending, reservations of open calls, hard limits and alerts."""
