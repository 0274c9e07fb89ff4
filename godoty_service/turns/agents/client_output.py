"""The result of a client tool that its caller has answered, as models see it."""

from typing import Any

from godoty_service import exact_json
from godoty_service.actions.action import StepCall
from godoty_service.attachments.blocks import result_block_of
from godoty_service.attachments.errors import AttachmentNotFound
from godoty_service.attachments.store import AttachmentStore


async def client_output(attachments: AttachmentStore, action: StepCall) -> dict[str, Any]:
    """Return the result of a call that was answered with an output, without the id of the call.

    Args:
        attachments: The tenant's attachments.
        action: The call.
    """
    answer = action.decision.answer if action.decision is not None else None
    if answer is None or answer.failed:
        return {"status": "error", "content": [{"text": answer.why if answer is not None else ""}]}
    if answer.attachment_id is not None:
        try:
            stored = await attachments.get(action.tenant_id, answer.attachment_id)
        except AttachmentNotFound:
            return {"status": "error", "content": [{"text": "The image that was the result is deleted."}]}
        return {"status": "success", "content": [result_block_of(stored.attachment)]}
    if answer.output_json is not None:
        return {"status": "success", "content": [{"json": exact_json.loads(answer.output_json)}]}
    return {"status": "success", "content": [{"text": answer.output_text or ""}]}
