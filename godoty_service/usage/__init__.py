"""Usage reports: roll-ups of ledger entries, and the queries that read them."""
