"""A lease that a test waits for, and that holds on a machine on which other things run as well."""

from typing import Any

LEASE = 3.0  # seconds; a server that does not get a core, or a disk, for a second keeps it
HEARTBEAT = 0.3
SHORT_LEASE: dict[str, Any] = {"lease": LEASE, "heartbeat": HEARTBEAT}  # for a server of this process
SHORT_LEASE_ENVIRONMENT = {"GODOTY_LEASE": str(LEASE), "GODOTY_HEARTBEAT": str(HEARTBEAT)}  # for one of its own
