"""Run the sandbox as a process: `python -m openrouter_sandbox --listen 127.0.0.1:PORT [--recorded DIR]`."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from openrouter_sandbox.parent_death import watch_parent
from openrouter_sandbox.server import Sandbox
from openrouter_sandbox.settings import SandboxSettings


def main() -> None:
    """Serve until SIGTERM, SIGINT or the death of the parent process."""
    arguments = _arguments()
    watch_parent()
    asyncio.run(_serve(arguments))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m openrouter_sandbox", description="Emulate OpenRouter on this machine"
    )
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT; port 0 selects a free port")
    parser.add_argument("--recorded", type=Path, help="folder of recorded responses for the replay scenario")
    parser.add_argument("--delay-ms", type=int, default=0, help="default delay between chunks")
    parser.add_argument(
        "--generation-delay-ms",
        type=int,
        default=300,
        help="time from the end of a generation until /generation returns its record; 404 before",
    )
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    host, _, port = arguments.listen.rpartition(":")
    settings = SandboxSettings(delay_ms=arguments.delay_ms, generation_delay_ms=arguments.generation_delay_ms)
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    sandbox = Sandbox(host=host, port=int(port), recorded=arguments.recorded, settings=settings)
    async with sandbox:
        sys.stdout.write(f"sandbox ready {sandbox.base_url}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    main()
