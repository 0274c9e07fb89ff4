"""The gRPC edge: one short method an RPC, interceptors, proto to domain and back, errors to statuses."""
