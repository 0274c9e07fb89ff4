"""The turns of the fault load, drawn from a seed: what is asked of which agent, and what the client does then."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from openrouter_sandbox.billing.malformed import MALFORMED
from tests.faults.load_agents import CLERK, CLERK_TEXTS, MANAGER, MANAGER_TEXTS

# Models of providers that stop billing when the connection closes, and of providers that bill the whole answer.
MODELS = (
    "openai/gpt-4o-mini",
    "anthropic/claude-haiku-4.5",
    "google/gemini-2.5-flash",
    "deepseek/deepseek-v3.2",
    "meta-llama/llama-3.3-70b-instruct",
)
_MALFORMED = "reset n=900 record_reads=2 record="  # completed with a random malformed record of the sandbox
SCENARIOS = (
    "plain tokens=6",
    "plain tokens=40 delay_ms=5",
    "tool-loop calls=4 delay_ms=2",
    "tool-loop calls=3 parallel=2",
    "reasoning",
    "slow tokens=12 first_delay_ms=60 delay_ms=15",
    "delay-headers ms=120",
    "delay-headers ms=120 bill_first=1",
    "error-before status=500 times=1",
    "error-before status=429 retry_after=0",
    "error-before status=503",
    "error-200",
    "error-mid n=3 usage=1",
    "error-mid n=3 usage=0",
    "reset n=0",
    "reset n=900",
    "reset n=2500 rst=1",
    _MALFORMED,
    _MALFORMED,
    "tool-loop calls=3 fault=reset at=2 cut_after=1200",
    "tool-loop calls=3 fault=error-mid at=3 error_after=2",
    "cached",
    "byok",
    "no-cost",
    "websearch",
)
SESSIONS, ASKING_SESSIONS = 18, 4  # of the default agent, and of each agent that asks
_LAST_FORK_POINT = 4  # a message that nearly every session has


class Client(StrEnum):
    """What the client of a turn does."""

    READ = "read"
    CANCEL = "cancel"
    DEADLINE = "deadline"
    DISCONNECT = "disconnect"
    START = "start"  # begins the turn by StartTurn, and waits for it by WaitTurn


class Answer(StrEnum):
    """How the actions of a turn are answered."""

    APPROVE = "approve"
    CHANGE = "change"  # approves with another input
    DENY = "deny"
    TWICE = "twice"  # sends the same approval to all servers at once
    DECIDE = "decide"  # by DecideAction: the session goes on by itself
    DECIDE_TWICE = "decide twice"
    MESSAGE = "message"  # a new message instead
    NEVER = "never"


_CLIENTS = (*[Client.READ] * 4, *[Client.CANCEL] * 2, Client.DEADLINE, Client.DISCONNECT, Client.START)
_PATIENT_CLIENTS = (*[Client.READ] * 5, Client.CANCEL, Client.DISCONNECT, *[Client.START] * 3)  # of agents that ask


class _Kind(StrEnum):
    PLAIN = "plain"
    CLERK = CLERK
    MANAGER = MANAGER
    FORK = "fork"


# Each client takes these kinds in a random order, and then again: a load of any seed has all of them.
_DECK = (*[_Kind.PLAIN] * 4, *[_Kind.CLERK] * 2, _Kind.MANAGER, _Kind.FORK)


@dataclass(frozen=True)
class PlannedTurn:
    """A turn.

    Attributes:
        tenant: The index of the tenant.
        session: The session.
        text: The message.
        model: The model; empty: that of the agent.
        client: What its client does.
        after: After how many seconds its client leaves.
        agent: The agent; empty: the default.
        answer: How its actions are answered, if it asks.
        fork_at: The number of the message at which the session is forked afterwards; None: it is not.
        follow_up: The seed of what follows from how the turn ends.
    """

    tenant: int
    session: str
    text: str
    model: str
    client: Client
    after: float
    agent: str
    answer: Answer
    fork_at: int | None
    follow_up: int


def draw_turns(rng: random.Random, *, turns: int) -> list[PlannedTurn]:
    """Return random turns of one client."""
    kinds = _dealt(rng)
    return [_drawn(rng, next(kinds)) for _ in range(turns)]


def _dealt(rng: random.Random) -> Iterator[_Kind]:
    while True:
        yield from rng.sample(_DECK, len(_DECK))


def _drawn(rng: random.Random, kind: _Kind) -> PlannedTurn:
    base = rng.choice([_Kind.PLAIN, _Kind.CLERK]) if kind is _Kind.FORK else kind
    asks = base in (_Kind.CLERK, _Kind.MANAGER)
    texts = {_Kind.CLERK: CLERK_TEXTS, _Kind.MANAGER: MANAGER_TEXTS}
    return PlannedTurn(
        tenant=rng.randrange(2),
        session=f"{base}-{rng.randrange(ASKING_SESSIONS)}" if asks else f"s{rng.randrange(SESSIONS)}",
        text=rng.choice(texts[base]) if asks else f"go @sandbox {_scenario(rng)}",
        model="" if asks else rng.choice(MODELS),
        client=rng.choice(_PATIENT_CLIENTS if asks else _CLIENTS),
        after=rng.uniform(0.0, 0.35),
        agent=base.value if asks else "",
        answer=Answer.NEVER if kind is _Kind.FORK else rng.choice([*Answer]),  # a fork with open actions
        fork_at=rng.randrange(_LAST_FORK_POINT + 1) if kind is _Kind.FORK else None,
        follow_up=rng.randrange(2**32),
    )


def _scenario(rng: random.Random) -> str:
    drawn = rng.choice(SCENARIOS)
    return drawn + rng.choice(sorted(MALFORMED)) if drawn == _MALFORMED else drawn
