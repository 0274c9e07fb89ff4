"""Logs, traces and metrics for operators, without the content of conversations."""
