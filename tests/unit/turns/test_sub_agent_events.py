"""Events of sub-agents in a turn's log, and in documents."""

from datetime import timedelta

from godoty_service.turns.event_log.codec import event_from_document, event_to_document
from godoty_service.turns.event_log.events import SubAgentEvent, TextDelta, ToolCallFinished, ToolCallStarted


def test_event_of_a_sub_agent_is_stored_and_read() -> None:
    """With its path; a tool call keeps the path of the agent that it runs."""
    started = ToolCallStarted(tool_call_id="c", name="agent_b", input_json="{}", sub_agent_path="a#1/b#2")
    finished = ToolCallFinished(tool_call_id="c", succeeded=True, output="x", duration=timedelta(seconds=1))
    for event in (started, SubAgentEvent("a#1", started), SubAgentEvent("a#1", finished)):
        assert event_from_document(event_to_document(event)) == event


def test_tool_call_of_an_earlier_build_runs_no_sub_agent() -> None:
    """Its document has three values."""
    read = event_from_document({"tool": ["c", "calculator", "{}"]})
    assert read == ToolCallStarted(tool_call_id="c", name="calculator", input_json="{}")


def test_event_of_a_later_kind_is_no_text_of_the_answer() -> None:
    """It keeps its number and shows nothing."""
    assert event_from_document({"sub_agent": ["a#1", {"later": [1]}]}) == TextDelta("")
    assert event_from_document({"sub_agent": ["a#1", "a text"]}) == TextDelta("")
