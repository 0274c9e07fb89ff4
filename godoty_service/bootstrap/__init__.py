"""Builds the components of the service from its settings, and opens what they need."""
