"""The provider edge: the Strands model, its HTTP client and stream decoding, the catalogue source, and errors."""
