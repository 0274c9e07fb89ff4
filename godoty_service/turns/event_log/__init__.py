"""A turn's event log: events, their documents, the listeners that append them, the store, writer and readers."""
