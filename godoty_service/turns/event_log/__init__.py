"""A turn's event log: its events, their documents, the store, the writer and the readers."""
