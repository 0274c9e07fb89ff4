"""HTTP requests to hosts that tenants or models name: checked addresses, bounded answers."""
