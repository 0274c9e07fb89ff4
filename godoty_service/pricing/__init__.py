"""Money, token usage, price lists, and the pricing oracle that computes costs and their upper bounds."""
