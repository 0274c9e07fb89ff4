"""Run the MCP server as a process: `python -m openrouter_sandbox.mcp --listen 127.0.0.1:PORT`."""

import argparse
import asyncio
import signal
import sys

from openrouter_sandbox.mcp.server import McpSandbox
from openrouter_sandbox.parent_death import watch_parent


def main() -> None:
    """Serve until SIGTERM, SIGINT or the death of the parent process."""
    parser = argparse.ArgumentParser(
        prog="python -m openrouter_sandbox.mcp", description="An MCP server for development and tests"
    )
    parser.add_argument("--listen", default="127.0.0.1:8900", help="HOST:PORT; port 0 selects a free port")
    host, _, port = parser.parse_args().listen.rpartition(":")
    watch_parent()
    asyncio.run(_serve(host, int(port)))


async def _serve(host: str, port: int) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with McpSandbox(host=host, port=port) as server:
        sys.stdout.write(f"MCP server ready {server.url()}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    main()
