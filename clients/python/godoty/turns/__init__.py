"""Turns: their options and requests, what is known of them, and the iterators that callers read."""
