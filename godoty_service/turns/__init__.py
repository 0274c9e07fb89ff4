"""One turn of a conversation: start, execution and end, monitoring, recovery, and its readers."""
