"""Godoty's client: the library, the stubs `godoty.v1` and the terminal chat."""

from godoty.client import GodotyClient
from godoty.errors import FieldViolation, GodotyError

__all__ = ["FieldViolation", "GodotyClient", "GodotyError"]
