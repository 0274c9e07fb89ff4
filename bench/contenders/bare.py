"""The bare libraries, without a service: `python -m bench.contenders.bare UPSTREAM MONGODB`.

grpc.aio, aiohttp and PyMongo by themselves, for what Godoty promises: a turn is two durable writes, one after the
other, a request and a message for each token; metrics are one read by an index. There is no agent, no key, no history,
no closing of what was opened, no log, no error of its own. What a promise leaves for all of that is what stands
between this and its limit.
"""

import argparse
import asyncio
import itertools
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import uvloop
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc
from godoty.v1 import turn_pb2 as turn_pb
from pydantic_core import from_json
from pymongo import AsyncMongoClient
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from openrouter_sandbox.parent_death import watch_parent

_DATABASE = "godoty_bare"
_MODEL = "openai/gpt-4o-mini"
_KEY = "sandbox-bare"


class Bare(agent_service_pb2_grpc.AgentServiceServicer):
    """Serves Converse and GetSessionMetrics."""

    def __init__(self, http: aiohttp.ClientSession, upstream: str, database: Any) -> None:
        self._http = http
        self._url = f"{upstream}/chat/completions"
        self._sessions, self._calls = database["sessions"], database["calls"]
        self._numbers = itertools.count(1)

    async def Converse(self, request: pb.ConverseRequest, _: Any) -> AsyncIterator[pb.ConverseResponse]:  # noqa: N802
        """Run one turn."""
        number = next(self._numbers)
        await self._sessions.insert_one({"tenant_id": "bare", "session_id": str(number), "text": request.text})
        await self._calls.insert_one({"session_id": number, "model": request.model})
        sequence = 1
        yield _response(sequence, turn_started=turn_pb.TurnStarted())
        body = {"model": _MODEL, "stream": True, "messages": [{"role": "user", "content": request.text}]}
        async with self._http.post(self._url, json=body, headers={"Authorization": f"Bearer {_KEY}"}) as answer:
            rest = b""
            while data := await answer.content.readany():
                *lines, rest = (rest + data).split(b"\n")
                text = "".join(map(_text, lines))
                if text:
                    sequence += 1
                    yield _response(sequence, text_delta=turn_pb.TextDelta(text=text))
        yield _response(sequence + 1, turn_finished=turn_pb.TurnFinished())

    async def GetSessionMetrics(self, request: pb.GetSessionMetricsRequest, _: Any) -> pb.GetSessionMetricsResponse:  # noqa: N802
        """Return a session, created by the first request."""
        which = {"tenant_id": "bare", "session_id": request.session_id}
        if await self._sessions.find_one(which) is None:
            await self._sessions.insert_one({**which, "text": ""})
        return pb.GetSessionMetricsResponse()


def _text(line: bytes) -> str:
    if not line.startswith(b"data: {"):
        return ""
    choices = from_json(line[6:])["choices"]
    return choices[0]["delta"].get("content") or "" if choices else ""


def _response(sequence: int, **event: Any) -> pb.ConverseResponse:
    return pb.ConverseResponse(event=turn_pb.TurnEvent(sequence=sequence, turn_id="turn", **event))


async def serve(upstream: str, mongodb: str, listen: str, *, shared: bool) -> None:
    """Serve until SIGTERM; print a line when ready."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongodb, maxPoolSize=200)
    database = client.get_database(
        _DATABASE, write_concern=WriteConcern("majority", j=True), read_concern=ReadConcern("majority")
    )
    await database["sessions"].create_index([("tenant_id", 1), ("session_id", 1)])
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        server = grpc.aio.server(options=[("grpc.so_reuseport", int(shared))])
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(Bare(http, upstream, database), server)  # type: ignore[no-untyped-call]
        server.add_insecure_port(listen)
        await server.start()
        stop = asyncio.Event()
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, stop.set)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await stop.wait()
        await server.stop(1)
    await client.close()


def main() -> None:
    """Serve until SIGTERM or the parent's end."""
    parser = argparse.ArgumentParser(description="grpc.aio, aiohttp and PyMongo by themselves")
    parser.add_argument("upstream", help="OpenRouter's base URL")
    parser.add_argument("mongodb", help="MongoDB's URI")
    parser.add_argument("--listen", required=True, help="host:port")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the port")
    parser.add_argument("--beside", action="store_true", help="this is one of them that another has started")
    given = parser.parse_args()
    watch_parent()
    others = [
        subprocess.Popen([sys.executable, "-m", "bench.contenders.bare", *sys.argv[1:], "--beside"])  # noqa: S603 - this module
        for _ in range(0 if given.beside else given.workers - 1)
    ]
    uvloop.run(serve(given.upstream, given.mongodb, given.listen, shared=given.workers > 1))
    for other in others:
        other.terminate()
        other.wait()


if __name__ == "__main__":
    main()
