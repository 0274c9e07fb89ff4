"""The whole world on one machine: a local MongoDB and an OpenRouter that keeps its own invoice.

The invoice is the independent bookkeeper of the accounting promise, so this room imports no other room.
"""
