"""The ledger: entries, the table of their states, totals over them, and their verification."""
