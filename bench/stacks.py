"""Stacks of a sampling profiler: which layer's code ran, and under which functions.

The path of a function's file determines its layer. A sample belongs to the layer of its innermost frame that has one:
the standard library's helpers count as their caller's.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

LAYERS: Mapping[str, tuple[str, ...]] = {
    "gRPC, protobuf": ("grpc", "grpc_health", "google", "clients"),
    "database driver": ("motor", "pymongo"),
    "BSON": ("bson",),
    "JSON": ("json",),
    "Strands": ("strands",),
    "openai, httpx": ("openai", "httpx2", "httpcore2", "anyio", "sniffio"),
    "aiohttp": ("aiohttp", "yarl", "multidict", "aiosignal", "frozenlist", "propcache"),
    "asyncio": ("asyncio", "selectors.py"),
    "threads": ("threading.py", "concurrent", "queue.py"),
    "logging, telemetry": ("structlog", "logging", "opentelemetry", "prometheus_client"),
    "pydantic": ("pydantic", "pydantic_core", "pydantic_settings"),
}
C_STEPS = "C code: the loop's, and gRPC's under it"
OTHERS = "others"
_LAYER_OF = {package: layer for layer, packages in LAYERS.items() for package in packages}
_OURS = "godoty_service"
_PLACE = re.compile(r"^.*/(?:site-packages|python3\.\d+)/")
_ROOT = f"{Path(__file__).parents[1]}/"
_STEP = "Runner.run"  # calls uvloop, which is written in C: code right above it has no frames
_OUTER = frozenset({_STEP, "BaseEventLoop.run_forever", "_worker"})  # frames outside of them are the same in all stacks


@dataclass(frozen=True)
class Frame:
    """A function in a stack.

    Attributes:
        function: Its qualified name.
        path: Its file, from its package on.
    """

    function: str
    path: str

    @property
    def layer(self) -> str | None:
        """The layer; None: it has none."""
        package, _, rest = self.path.partition("/")
        if package != _OURS:
            return _LAYER_OF.get(package)
        package, below, _ = rest.partition("/")
        return f"Godoty: {package}" if below else "Godoty: its other modules"


@dataclass(frozen=True)
class Stack:
    """A stack, outermost frame first, and how often it was seen."""

    frames: tuple[Frame, ...]
    samples: int

    @property
    def layer(self) -> str:
        """The layer whose code ran."""
        if self.frames and self.frames[-1].function == _STEP:
            return C_STEPS
        return next((layer for frame in reversed(self.frames) if (layer := frame.layer)), OTHERS)

    @property
    def inner(self) -> tuple[Frame, ...]:
        """The frames inside of the loop's step, of the loop, or of a thread's work."""
        for place in range(len(self.frames) - 1, -1, -1):
            if self.frames[place].function in _OUTER:
                return self.frames[place + 1 :]
        return self.frames


def read(text: str) -> list[Stack]:
    """Read collapsed stacks: `outer (file:line);inner (file:line) samples`, a line each."""
    stacks = []
    for line in text.splitlines():
        frames, _, samples = line.rpartition(" ")
        stacks.append(Stack(tuple(_frame(each) for each in frames.split(";")), int(samples)))
    return stacks


def by_layer(stacks: Iterable[Stack]) -> Counter[str]:
    """The samples of each layer."""
    found: Counter[str] = Counter()
    for stack in stacks:
        found[stack.layer] += stack.samples
    return found


def by_function(stacks: Iterable[Stack]) -> Counter[Frame]:
    """The samples in which a function ran, itself or what it called."""
    found: Counter[Frame] = Counter()
    for stack in stacks:
        for frame in set(stack.inner):
            found[frame] += stack.samples
    return found


def by_innermost(stacks: Iterable[Stack]) -> Counter[Frame]:
    """The samples in which a function ran itself, or what is written in C for it."""
    found: Counter[Frame] = Counter()
    for stack in stacks:
        found[stack.frames[-1]] += stack.samples
    return found


def _frame(text: str) -> Frame:
    function, _, place = text.rpartition(" (")
    path = place.removesuffix(")").rpartition(":")[0].removeprefix(_ROOT)
    return Frame(function, _PLACE.sub("", path))
