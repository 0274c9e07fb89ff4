"""Scenarios: how requests are answered, which one applies to a request, and answers that pause until released."""
