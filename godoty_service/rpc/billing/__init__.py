"""BillingService: usage, budgets and the ledger of a tenant."""
