"""One turn of a conversation: claim, run, event log, cancel."""
