"""Measures what Godoty promises, on the machine at hand: each module is a command that prints Markdown."""
