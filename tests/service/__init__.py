"""The service as tests see it: what it stands on, who calls it, and what it wrote."""
