"""A tool's input as it is handed to Strands, which parses it. It holds no amounts."""

import json


def sound(arguments: str) -> str:
    """Replace half a surrogate pair that stands escaped in the input: parsed, it can be neither kept nor sent."""
    if "\\ud" not in arguments.lower():
        return arguments
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return json.dumps(parsed, ensure_ascii=False).encode("utf-8", "replace").decode()
