"""The tools of the server, by the names that definitions use."""
