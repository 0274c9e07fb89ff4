"""Output schemas: what a schema may be, the form in which models get it, and the check of their answers."""
