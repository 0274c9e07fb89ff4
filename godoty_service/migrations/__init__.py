"""The schema version of the database, and the migrations from each version to the next."""
