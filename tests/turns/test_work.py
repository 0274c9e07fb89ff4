"""What a token and a turn cost, counted in calls. It grows with the code on their way, not with the machine's load.

The bounds stand a quarter above what was counted when they were written. Whoever passes one has put something on the
way of each token: let him look first whether it can be done once a turn, and raise the bound only when it cannot.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import pytest

from godoty_service.openrouter.pace import Pace
from tests.conftest import Start
from tests.service.caller import Caller
from tests.service.service import Service
from tests.turns.streams import until
from tests.turns.work import Work

# Calls for a token that comes alone, by package. A package that is not named has nothing to do with tokens. "godoty" is
# the encoding of its message.
ALONE = {"godoty_service": 46, "aiohttp": 25, "pydantic_core": 1.25, "godoty": 1.25}
# Calls for each of many tokens that come together; some for the reads that they come in.
TOGETHER = {"godoty_service": 10, "aiohttp": 10, "pydantic_core": 1.25, "pymongo": 2}
NOTHING = 0.3
# Calls for a turn with a short answer in a new session: of all, of some packages, and of any other.
ALL_OF_A_TURN = 10_700
A_TURN = {"pymongo": 4_200, "asyncio": 760, "godoty_service": 1_780, "strands": 1_310}
OTHERS = 270

_WINDOW = 5  # tokens
_ENOUGH = 10  # windows
_TOKENS, _DELAY_MS = 240, 4  # of an answer whose tokens come alone
_ATTEMPTS = 5
_ROUNDS = 3  # of a turn that is counted as a whole


@pytest.fixture
async def caller(serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch) -> Caller:
    """Calls a server in this loop that has taken a turn before, and that no load makes read on a beat."""
    monkeypatch.setattr(Pace, "_set", lambda *_, **__: None)
    quiet: dict[str, Any] = dict.fromkeys(("heartbeat", "reconcile_interval", "turn_watch_interval"), 600.0)
    caller = connect(await serve(lease=6_000.0, **quiet))
    await caller.converse("hi", session_id="warm")
    return caller


async def test_a_token_that_comes_alone(caller: Caller) -> None:
    """Each package does what it did, and an answer's last tokens cost what its first ones do."""
    windows = await windows_of_single_tokens(caller)
    half = len(windows) // 2
    early, late = (sum(typical(each).values()) for each in (windows[:half], windows[half:]))

    assert above(typical(windows), ALONE, NOTHING) == {}
    assert late < 1.03 * early


async def test_a_token_among_many(caller: Caller) -> None:
    """Tokens that come together cost their parsing, and little more."""
    short, long = [await least(caller, f"@sandbox long tokens={tokens}") for tokens in (500, 1_500)]
    found = {name: (calls - short[name]) / 1_000 for name, calls in long.items()}

    assert above(found, TOGETHER, NOTHING) == {}


async def test_a_turn(caller: Caller) -> None:
    """A turn costs something however short its answer is; its log's write is in it."""
    found = await least(caller, "@sandbox plain tokens=1")

    assert above(found, A_TURN, OTHERS) == {}
    assert found.total() < ALL_OF_A_TURN


async def windows_of_single_tokens(caller: Caller) -> list[Counter[str]]:
    """Count the work of a few tokens each, in their order; those that load made come together are left out."""
    for attempt in range(_ATTEMPTS):
        windows = await _windows(caller, f"alone{attempt}")
        if len(windows) >= _ENOUGH:
            return windows
    raise AssertionError("no tokens come alone any more")


async def _windows(caller: Caller, session_id: str) -> list[Counter[str]]:
    windows: list[Counter[str]] = []
    with Work() as work:
        since, alone = work.calls.copy(), 0
        call = caller.start(f"@sandbox plain tokens={_TOKENS} delay_ms={_DELAY_MS}", session_id=session_id)
        async for response in call:
            alone = alone + 1 if len(response.text_delta.text.split()) == 1 else 0
            if alone == _WINDOW:
                windows.append(work.calls - since)
            if alone in {0, _WINDOW}:
                since, alone = work.calls.copy(), 0
    return windows


def typical(windows: list[Counter[str]]) -> dict[str, float]:
    """The work for one token, in most windows: what happens now and then, beside the tokens, is in few of them."""
    names = {name for window in windows for name in window}
    return {name: median(window[name] for window in windows) / _WINDOW for name in names}


async def least(caller: Caller, text: str) -> Counter[str]:
    """Count a turn, until its log is kept, a few times; the least that each package had to do."""
    found = [await _turn(caller, text, f"{len(text)}-{number}") for number in range(_ROUNDS)]
    names = {name for each in found for name in each}
    return Counter({name: min(each[name] for each in found) for name in names})


async def _turn(caller: Caller, text: str, session_id: str) -> Counter[str]:
    logs = caller.service.database["turn_logs"]
    with Work() as work:
        turn = await caller.converse(text, session_id=session_id)
        await until(lambda: logs.count_documents({"turn_id": turn.responses[0].turn_id, "ended": True}) == 1)
    assert turn.finished
    return work.calls


def above(found: Mapping[str, float], bounds: Mapping[str, float], others: float) -> dict[str, float]:
    """Who did more than he may."""
    return {name: calls for name, calls in found.items() if calls > bounds.get(name, others)}
