"""An MCP server for development and tests: tools that work, and every way in which a server can misbehave."""
