"""AgentService: turns, sessions, actions and attachments."""
