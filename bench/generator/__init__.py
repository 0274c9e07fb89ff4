"""The load generator: the same for every contender; it reads bytes as they come and decodes them after."""
