"""Tools of MCP servers: the servers that tenants define, the connections to them, and their tools in a turn."""
