"""The agent that the server itself has for each tenant."""

from godoty_service.agents.definitions import (
    ASSISTANT,
    BUILT_IN_VERSION,
    Agent,
    AgentDefinition,
    AgentVersion,
    BuiltInTool,
)

_PROMPT = (
    "You are a helpful assistant. Answer briefly and directly, in the language of the question. "
    "Use the calculator for arithmetic and current_time for dates and times instead of guessing. "
    "Say so when you do not know something."
)
BUILT_IN = Agent(
    newest=AgentVersion(
        definition=AgentDefinition(
            name=ASSISTANT,
            description="Answers questions, calculates and knows the time.",
            system_prompt=_PROMPT,
            tools=(BuiltInTool(name="calculator"), BuiltInTool(name="current_time")),
        ),
        version=BUILT_IN_VERSION,
    )
)
