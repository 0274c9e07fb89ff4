"""Raises the reasons that concern attachments."""

from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import attachment_pb2

from tests.e2e.reasons.environment import Environment
from tests.e2e.reasons.raising import failed, raises
from tests.support.caller import Caller, Failure, failure_of, read
from tests.support.media import png

BLIND = "deepseek/deepseek-v3.2"  # takes text alone


async def _uploaded(caller: Caller, data: bytes) -> pb.UploadAttachmentResponse:
    """Upload bytes."""
    requests = iter([pb.UploadAttachmentRequest(data=data)])
    found: pb.UploadAttachmentResponse = await caller.stub.UploadAttachment(requests, metadata=caller.service.metadata)
    return found


@raises("ATTACHMENT_NOT_FOUND")
async def _no_attachment(environment: Environment) -> Failure:
    theirs = (await _uploaded(environment.other_tenant, png())).attachment
    request = pb.GetAttachmentRequest(attachment_id=theirs.attachment_id)
    return failed(await read(environment.caller.stub.GetAttachment(request, metadata=environment.service.metadata)))


@raises("ATTACHMENT_REJECTED")
async def _rejected(environment: Environment) -> Failure:
    return await failure_of(_uploaded(environment.caller, b"a text"))


@raises("ATTACHMENT_LIMIT")
async def _limit(environment: Environment) -> Failure:
    caller = environment.connect(await environment.serve(attachments_per_tenant=1))
    await _uploaded(caller, png())
    return await failure_of(_uploaded(caller, png()))


@raises("INPUT_NOT_SUPPORTED")
async def _not_supported(environment: Environment) -> Failure:
    source = attachment_pb2.AttachmentSource(inline=png())
    return failed(await environment.caller.converse("look", model=BLIND, attachments=[source]))
