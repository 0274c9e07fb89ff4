"""The commands: `godoty dev | serve | health | config | tenant | key | admin | usage | ledger | migrate | prices`."""

import os

from godoty_service.aio.gc import pause_gc_for_imports

# gRPC's core logs to stderr every client error. It reads this variable while it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

with pause_gc_for_imports():
    from godoty_service.cli.app import main

__all__ = ["main"]
