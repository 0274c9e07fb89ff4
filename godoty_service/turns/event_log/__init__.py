"""A turn's event log: its events, their documents, the listeners that append them, the store, the writer and the readers."""
