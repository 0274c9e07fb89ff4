"""`godoty agent`: a tenant's agents, applied from YAML files by way of a running server."""
