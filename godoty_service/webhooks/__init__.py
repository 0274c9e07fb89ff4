"""Webhooks: what a tenant is notified of, its endpoints, and the deliveries to them."""
