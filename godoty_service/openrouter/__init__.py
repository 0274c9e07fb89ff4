"""The provider edge: the Strands model, stream decoding, the catalogue's source and errors."""
