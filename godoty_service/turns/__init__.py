"""One turn of a conversation: start, execution and end, cancellation, recovery and resumption."""
