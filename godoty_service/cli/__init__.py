"""The command line: `godoty dev | serve | health | tenant | key | admin | usage | ledger | prices`."""

from godoty_service.collector import importing

with importing():
    from godoty_service.cli.main import main

__all__ = ["main"]
