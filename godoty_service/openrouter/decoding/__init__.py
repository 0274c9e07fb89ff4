"""Decodes the answers of OpenRouter: server-sent events, chunks, text, tool calls and reasoning."""
