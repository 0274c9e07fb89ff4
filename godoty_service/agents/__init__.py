"""Agent profiles and the built-in tools."""
