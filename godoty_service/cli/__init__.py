"""The command line: `godoty dev | serve | health | tenant | key`."""

from godoty_service.cli.main import main

__all__ = ["main"]
