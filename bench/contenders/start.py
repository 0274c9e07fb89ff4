"""Starts the contenders on a testbed."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bench.contenders import litellm
from bench.contenders.contender import CONVERSE, READY_SECONDS, Contender, clean_environment, python
from bench.environments import interpreter
from bench.generator.plan import Target
from bench.testbed import DATABASE, PROVIDER_KEY, Testbed
from godoty_service.cli.health import serving
from openrouter_sandbox.mongodb.mongod import free_port

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Wish:
    """The options of a contender's start.

    Attributes:
        workers: Worker processes, where it has some.
        settings: More of Godoty's settings, by environment variable.
    """

    workers: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


async def direct(testbed: Testbed, _: Wish) -> Contender:
    """The upstream itself, the baseline of all others."""
    url = urlsplit(testbed.upstream)
    return Contender(
        name="direct",
        target=Target(
            host=url.hostname or "",
            port=url.port or 0,
            path=f"{url.path}/chat/completions",
            wire="sse",
            words="openai",
            headers={"authorization": f"Bearer {PROVIDER_KEY}"},
        ),
    )


async def openai_strands(testbed: Testbed, _: Wish) -> Contender:
    """Strands' OpenAIModel behind grpc.aio."""
    return await _strands_grpc(testbed, "openai-strands", "openai", interpreter("strands"))


async def litellm_strands(testbed: Testbed, _: Wish) -> Contender:
    """Strands' LiteLLMModel behind grpc.aio."""
    return await _strands_grpc(testbed, "litellm-strands", "litellm", interpreter("litellm"))


async def a2a(testbed: Testbed, _: Wish) -> Contender:
    """Strands' A2A server."""
    port = free_port()
    command = python("bench.contenders.strands_a2a", str(port), testbed.upstream, interpreter=interpreter("strands"))
    child = testbed.child("a2a", command, output=False)
    target = Target(host=_HOST, port=port, path="/", wire="sse", words="a2a")
    return await _listening(Contender(name="a2a", target=target, child=child))


async def litellm_proxy(testbed: Testbed, _: Wish) -> Contender:
    """LiteLLM's proxy."""
    port = free_port()
    configuration = litellm.write_configuration(testbed.directory, testbed.upstream, PROVIDER_KEY)
    command = python(litellm.MODULE, *litellm.arguments(port, configuration), interpreter=interpreter("litellm"))
    child = testbed.child("litellm-proxy", command, output=False, environment=litellm.environment())
    headers = {"authorization": f"Bearer {litellm.KEY}"}
    target = Target(host=_HOST, port=port, path="/chat/completions", wire="sse", words="openai", headers=headers)
    return await _listening(Contender(name="litellm-proxy", target=target, child=child))


async def bare(testbed: Testbed, wish: Wish) -> Contender:
    """The bare libraries."""
    address = f"{_HOST}:{free_port()}"
    where = ["--listen", address, "--workers", str(wish.workers)]
    child = testbed.child("bare", python("bench.contenders.bare", testbed.upstream, testbed.mongo.uri, *where))
    await child.start()
    for _ in range(wish.workers):
        await child.line(READY_SECONDS)
    return Contender(name="bare", target=_grpc(address, {}), child=child)


async def godoty(testbed: Testbed, wish: Wish) -> Contender:
    """`godoty serve` as in production, with ledger, keys, logs and journaled writes."""
    address = f"{_HOST}:{free_port()}"
    environment = {
        **clean_environment(),
        "GODOTY_LISTEN": address,
        "GODOTY_MONGODB_URI": testbed.mongo.uri,
        "GODOTY_MONGODB_DATABASE": DATABASE,
        "GODOTY_OPENROUTER_BASE_URL": testbed.upstream,
        "OPENROUTER_API_KEY": PROVIDER_KEY,
        **({"GODOTY_WORKERS": str(wish.workers)} if wish.workers > 1 else {}),
        **wish.settings,
    }
    child = testbed.child("godoty", python("godoty_service.cli", "serve"), environment=environment, output=False)
    headers = {"authorization": f"Bearer {testbed.api_key}"}
    contender = await _listening(Contender(name="godoty", target=_grpc(address, headers), child=child))
    while not await serving(address):
        _ = child.process  # raises when it has ended
        await asyncio.sleep(_POLL_SECONDS)
    return contender


CONTENDERS: Mapping[str, Callable[[Testbed, Wish], Awaitable[Contender]]] = {
    "direct": direct,
    "litellm-proxy": litellm_proxy,
    "litellm-strands": litellm_strands,
    "a2a": a2a,
    "openai-strands": openai_strands,
    "bare": bare,
    "godoty": godoty,
}


async def _strands_grpc(testbed: Testbed, name: str, model: str, interpreter: str) -> Contender:
    """Return a Strands model in its own environment."""
    child = testbed.child(
        name, python("bench.contenders.strands_grpc", model, testbed.upstream, interpreter=interpreter)
    )
    await child.start()
    address = (await child.line(READY_SECONDS)).split()[-1]
    return Contender(name=name, target=_grpc(address, {}), child=child)


async def _listening(contender: Contender) -> Contender:
    """Start a contender's server, and wait until its port answers."""
    assert contender.child is not None  # noqa: S101 - it has one
    await contender.child.start()
    give_up = time.monotonic() + READY_SECONDS
    while time.monotonic() < give_up:
        _ = contender.child.process  # raises when it has ended
        try:
            _, writer = await asyncio.open_connection(contender.target.host, contender.target.port)
        except OSError:
            await asyncio.sleep(_POLL_SECONDS)
        else:
            writer.close()
            return contender
    raise RuntimeError(f"{contender.name} does not listen: {contender.child.log_end()}")


def _grpc(address: str, headers: dict[str, str]) -> Target:
    host, _, port = address.rpartition(":")
    return Target(host=host, port=int(port), path=CONVERSE, wire="grpc", words="godoty", headers=headers)
