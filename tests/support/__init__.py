"""Support for tests: the environment of the service, clients, commands and checks."""
