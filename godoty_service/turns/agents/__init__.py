"""The agents of a turn: their models, and the agents that others call as their tools."""
