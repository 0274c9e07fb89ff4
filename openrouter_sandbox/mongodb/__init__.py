"""Local MongoDB servers and replica sets for development and tests."""
