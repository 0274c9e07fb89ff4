"""End users of tenants: their names stand in one collection, and everything else has a random reference to them."""
