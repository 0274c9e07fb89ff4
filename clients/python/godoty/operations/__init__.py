"""The RPCs of each subject as methods: what is requested, and how the response is read."""
