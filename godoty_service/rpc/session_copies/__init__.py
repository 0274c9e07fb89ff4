"""Converts what makes sessions from others: forks, exports and imports."""
