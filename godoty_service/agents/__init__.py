"""Agents: their definitions and versions, their tools, and what a turn takes of them."""
