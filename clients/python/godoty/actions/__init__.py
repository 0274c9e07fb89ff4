"""What a turn asks of its caller: approvals, and the results of client tools."""
