"""Strands' own models behind a minimal grpc.aio server: `python -m bench.contenders.strands_grpc MODEL UPSTREAM`.

It does what a team would write first: a fresh Agent a turn, one client for all, each text delta a message. It keeps
no ledger, no session and no keys. It speaks Godoty's messages, so that the wire is no difference.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc
from godoty.v1 import turn_pb2 as turn_pb
from strands import Agent
from strands.models import Model

from openrouter_sandbox.parent_death import watch_parent

MODEL = "openai/gpt-4o-mini"
KEY = "sandbox-peer"


def openai_model(upstream: str) -> Model:
    """Strands' OpenAIModel over one shared client: without one it opens a client for each request."""
    from openai import AsyncOpenAI  # noqa: PLC0415 - the other model's environment need not load it
    from strands.models.openai import OpenAIModel  # noqa: PLC0415

    return OpenAIModel(client=AsyncOpenAI(api_key=KEY, base_url=upstream), model_id=MODEL)


def litellm_model(upstream: str) -> Model:
    """Strands' LiteLLMModel."""
    import litellm  # noqa: PLC0415 - it lives in an environment of the bench's own
    from strands.models.litellm import LiteLLMModel  # noqa: PLC0415

    litellm.telemetry = False
    return LiteLLMModel(client_args={"api_key": KEY, "api_base": upstream}, model_id=f"openrouter/{MODEL}")


MODELS = {"openai": openai_model, "litellm": litellm_model}


class Turns(agent_service_pb2_grpc.AgentServiceServicer):
    """Serves Converse only."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def Converse(self, request: pb.ConverseRequest, _: Any) -> AsyncIterator[pb.ConverseResponse]:  # noqa: N802
        """Run one turn."""
        agent = Agent(model=self._model, callback_handler=None)
        sequence = 1
        yield _response(sequence, turn_started=turn_pb.TurnStarted())
        async for event in agent.stream_async(request.text):
            if "data" in event:
                sequence += 1
                yield _response(sequence, text_delta=turn_pb.TextDelta(text=event["data"]))
        yield _response(sequence + 1, turn_finished=turn_pb.TurnFinished())


def _response(sequence: int, **event: Any) -> pb.ConverseResponse:
    return pb.ConverseResponse(event=turn_pb.TurnEvent(sequence=sequence, turn_id="turn", **event))


async def serve(model: Model) -> None:
    """Serve on a free port until SIGTERM; print the port."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(Turns(model), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    sys.stdout.write(f"ready 127.0.0.1:{port}\n")
    sys.stdout.flush()
    await stop.wait()
    await server.stop(1)


def main() -> None:
    """Serve until SIGTERM or the parent's end."""
    parser = argparse.ArgumentParser(description="Strands' models behind grpc.aio")
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("upstream", help="OpenRouter's base URL")
    arguments = parser.parse_args()
    watch_parent()
    asyncio.run(serve(MODELS[arguments.model](arguments.upstream)))


if __name__ == "__main__":
    main()
