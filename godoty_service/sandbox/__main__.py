"""`python -m godoty_service.sandbox --listen 127.0.0.1:PORT [--recorded DIR]`: the sandbox as a process."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from godoty_service.sandbox.lifeline import watch_parent
from godoty_service.sandbox.server import Sandbox
from godoty_service.sandbox.settings import SandboxSettings


def main() -> None:
    """Serve until SIGTERM, SIGINT or the parent's end."""
    arguments = _arguments()
    watch_parent()
    asyncio.run(_serve(arguments))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m godoty_service.sandbox", description="An OpenRouter on this machine"
    )
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT; port 0 takes a free one")
    parser.add_argument("--recorded", type=Path, help="folder of recorded responses to replay")
    parser.add_argument("--delay-ms", type=int, default=0, help="wait between chunks where no scenario says")
    parser.add_argument("--generation-delay-ms", type=int, default=300, help="how long /generation answers 404")
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
