"""Money: usage, prices, the ledger and its folds."""
