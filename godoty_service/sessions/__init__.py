"""What a conversation remembers: history, agent state and the lease."""
