"""What the service tells its operators: log lines, traces and metrics, none of them with a tenant's words."""
