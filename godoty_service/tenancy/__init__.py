"""Tenants, their API keys and provider keys, their policies and turn limits, and the audit of changes to them."""
