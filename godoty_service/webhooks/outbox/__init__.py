"""The outbox: events are derived from what is stored in any case, and their deliveries are stored."""
