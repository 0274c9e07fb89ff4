"""Godoty: a multi-tenant gRPC service that runs Strands agents on OpenRouter and accounts for every token."""
