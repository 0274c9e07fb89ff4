"""The command line: `godoty dev | serve | health | tenant | key | admin | usage | ledger | prices`."""

import os

from godoty_service.collector import importing

# gRPC's core logs to stderr what any client sends wrong. It reads this while it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

with importing():
    from godoty_service.cli.main import main

__all__ = ["main"]
