"""A generation and its bill: usage and cost, the invoice line and the generation record."""
