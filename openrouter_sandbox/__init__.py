"""An emulator of OpenRouter with an invoice of its own, and local MongoDB servers, for development and tests.

It imports nothing of the service, so that its invoice is an independent check of the service's ledger.
"""
