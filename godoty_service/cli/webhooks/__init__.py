"""`godoty webhook`: a tenant's webhooks, and a receiver for development."""
