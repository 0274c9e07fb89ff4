"""The chat on a terminal: what it shows, and how it is answered."""
