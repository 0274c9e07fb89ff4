"""The models on offer: the listing, the providers that serve them, routing and prices."""
