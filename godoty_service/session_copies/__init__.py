"""Sessions that are made from others: forks, and exports with their imports."""
