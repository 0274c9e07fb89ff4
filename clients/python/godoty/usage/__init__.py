"""`godoty-usage`: what a tenant has spent, for those who have an API key of the scope `billing`."""
