"""The servers that are measured, each started in a process of its own."""
