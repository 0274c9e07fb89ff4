"""The gRPC layer: interceptor, one short method per RPC, codecs between protobuf and domain values, error statuses."""
