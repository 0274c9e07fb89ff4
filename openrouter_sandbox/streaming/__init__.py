"""The response on the wire: chunks, pacing, injected faults, and the client's connection."""
