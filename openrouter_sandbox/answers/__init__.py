"""The content of answers: text, reasoning and tool calls, generated from the request and its scenario."""
