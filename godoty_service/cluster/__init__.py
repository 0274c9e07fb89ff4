"""Servers that share a database: heartbeats, clock synchronization, worker processes."""
