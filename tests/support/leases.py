"""A lease that is short enough to wait for, and long enough for a busy machine."""

from typing import Any

LEASE = 3.0  # seconds; a server that gets no CPU time or disk for a second does not lose it
HEARTBEAT = 0.3
SHORT_LEASE: dict[str, Any] = {"lease": LEASE, "heartbeat": HEARTBEAT}  # for a server in this process
SHORT_LEASE_ENVIRONMENT = {"GODOTY_LEASE": str(LEASE), "GODOTY_HEARTBEAT": str(HEARTBEAT)}  # for a server process
