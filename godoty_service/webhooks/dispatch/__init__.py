"""Sends what is due to the endpoints of webhooks, and attempts again what failed."""
