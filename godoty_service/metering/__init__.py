"""The meter of a turn's model calls, their reconciliation, and adjustments of final calls."""
