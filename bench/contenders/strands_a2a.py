"""Strands' own A2A server over its OpenAIModel: `python -m bench.contenders.strands_a2a PORT UPSTREAM`.

An agent for each conversation, as its documentation recommends, streaming as the protocol says, and the shared client
that the other contenders have too.
"""

import argparse

from strands import Agent
from strands.multiagent.a2a import A2AServer

from bench.contenders.strands_grpc import openai_model
from openrouter_sandbox.parent_death import watch_parent


def main() -> None:
    """Serve until SIGTERM or the parent's end."""
    parser = argparse.ArgumentParser(description="Strands' A2A server")
    parser.add_argument("port", type=int)
    parser.add_argument("upstream", help="OpenRouter's base URL")
    arguments = parser.parse_args()
    watch_parent()
    model = openai_model(arguments.upstream)

    def agent(_: str) -> Agent:
        return Agent(model=model, callback_handler=None, name="bench", description="Answers.")

    server = A2AServer(agent_factory=agent, port=arguments.port, enable_a2a_compliant_streaming=True)
    server.serve(port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
