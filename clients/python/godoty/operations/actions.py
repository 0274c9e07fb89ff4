"""Actions: tool calls that wait for an answer (scope converse or approve)."""

from __future__ import annotations

from godoty.actions.approvals import Approve, Deny, result_of
from godoty.calls import Call, Pages
from godoty.codec import all_from, enum_number, from_message, to_message
from godoty.types import Action, ActionState, ClientToolOutput
from godoty.v1 import action_pb2
from godoty.v1 import agent_service_pb2 as pb


def list_actions(
    *, session_id: str = "", state: ActionState | str = ActionState.UNSPECIFIED, page_size: int = 0
) -> Pages[Action]:
    """Yield actions, newest first, until their session is deleted.

    Args:
        session_id: Only those of this session; empty for all.
        state: Only those in this state, such as "open"; unspecified for all.
        page_size: Number of actions per page; 0 for the server's default.
    """
    request = pb.ListActionsRequest(session_id=session_id, page_size=page_size)
    request.state = enum_number(action_pb2.ActionState.DESCRIPTOR, state)  # type: ignore[assignment] # a number
    return Pages("AgentService.ListActions", request, lambda page: all_from(Action, page.actions))


def decide(action_id: str, answer: Approve | Deny | bool | ClientToolOutput, *, user: str = "") -> Call[Action]:  # noqa: FBT001 - it is a decision
    """Answer an action without a conversation; its session goes on by itself once nothing is open.

    Args:
        action_id: The action.
        answer: A decision on an approval; the output of a client tool.
        user: The person who answers, which is stored with the answer.

    Raises:
        ActionDecided: It has another answer; the same one again changes nothing.
        ReviewerOnly: It needs a key of the scope approve.
    """
    if isinstance(answer, ClientToolOutput):
        output = to_message(action_pb2.ClientToolOutput, answer)
        result = action_pb2.ActionResult(action_id=action_id, output=output)
    else:
        result = result_of(action_id, answer)
    request = pb.DecideActionRequest(action_result=result, user=user)
    return Call("AgentService.DecideAction", request, lambda response: from_message(Action, response.action))
