"""A contender: a server, and the format of its requests."""

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from godoty.v1 import agent_service_pb2 as pb

from bench.generator.plan import Target
from bench.process import Child

ROOT = Path(__file__).parents[2]
MODEL = "openai/gpt-4o-mini"
CONVERSE = "/godoty.v1.AgentService/Converse"
READY_SECONDS = 90.0


def clean_environment() -> dict[str, str]:
    """Return this environment without variables of services, and with the project's modules on Python's path."""
    ours = ("GODOTY_", "OPENROUTER_", "OPENAI_", "LITELLM_", "OTEL_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'clients/python'}"}


@dataclass(kw_only=True)
class Contender:
    """A server that streams answers.

    Attributes:
        name: What tables call it.
        target: Whom the load generator asks; its body is empty until a prompt is known.
        child: The server; None: the upstream itself is asked.
    """

    name: str
    target: Target
    child: Child | None = None

    def asked(self, prompt: str) -> Target:
        """Return the target with a prompt in its request."""
        if self.target.words == "godoty":
            body = pb.ConverseRequest(text=prompt, model=MODEL).SerializeToString()
        elif self.target.words == "openai":
            body = json.dumps(_chat(prompt)).encode()
        else:
            body = json.dumps(_a2a(prompt)).encode()
        return replace(self.target, body=body)


def python(module: str, *arguments: str, interpreter: str = sys.executable) -> list[str]:
    """Return the command that runs a module."""
    return [interpreter, "-m", module, *arguments]


def _chat(prompt: str) -> dict[str, object]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _a2a(prompt: str) -> dict[str, object]:
    message = {
        "kind": "message",
        "role": "user",
        "messageId": "PROMPT_ID",
        "parts": [{"kind": "text", "text": prompt}],
    }
    return {"jsonrpc": "2.0", "id": "PROMPT_ID", "method": "message/stream", "params": {"message": message}}
