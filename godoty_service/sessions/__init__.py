"""A conversation's stored state: messages, agent state, totals, and the lease that one turn at a time holds."""
