"""The load generator of all contenders: it records bytes as they arrive and decodes them afterwards."""
