"""MongoDB: the client, collections, batched writes, error translation, monitoring and diagnosis."""
