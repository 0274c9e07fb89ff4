"""A turn with an attachment, server tools and an output schema at once."""

import json
from pathlib import Path

import jsonschema
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.cli.agents.files import read_definitions
from godoty_service.ledger.entries import CallPurpose
from tests.e2e.agents.conftest import Definer
from tests.e2e.attachments.conftest import Attacher, digest
from tests.support.caller import Caller
from tests.support.media import pdf, png
from tests.support.output_schemas import SCHEMAS

EXAMPLES = Path(__file__).parents[3] / "examples" / "agents"
MODEL = "openai/gpt-4o-mini"  # takes images, and answers by a schema
SEARCH = {"max_uses": 2, "max_results": 3, "max_characters": 400}


async def test_each_request_carries_the_image_the_tools_and_the_schema(definer: Definer, caller: Caller) -> None:
    """Also the one after an answer that was not valid; both are within their bounds, and the ledger is the invoice."""
    attacher, image = Attacher(caller), png(640, 480)
    await definer.apply(model=MODEL, web_search=SEARCH, output_schema=json.dumps(SCHEMAS["flat"]))
    turn = await attacher.converse(
        "@sandbox default wrong=1 uses=2", image, agent="support", model=MODEL, limits={"max_cost_usd": "5"}
    )
    requests, entries = caller.service.requests("talk"), caller.service.entries("talk")
    question, answer = await caller.messages()

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert json.loads(turn.finished.output_json)
    assert attacher.seen() == [[digest(image)]] * 2
    assert [[each["type"] for each in request["tools"]] for request in requests] == [["openrouter:web_search"]] * 2
    assert all(request["response_format"]["type"] == "json_schema" for request in requests)
    assert [each.purpose for each in entries] == [CallPurpose.AGENT, CallPurpose.STRUCTURED_OUTPUT]
    for each in entries:
        assert each.cost is not None
        assert each.upper_bound is not None
        assert 0 < each.cost <= each.upper_bound
    assert sum(each.cost or 0 for each in entries) == caller.service.invoiced("talk")
    assert [each.WhichOneof("block") for each in question.content] == ["text", "attachment"]
    assert [each.title for each in answer.citations] == ["Page 1", "Page 2", "Page 3"]


async def test_later_request_without_a_schema_still_carries_the_image(definer: Definer, caller: Caller) -> None:
    """The value is a text of the conversation, the image a part of it, and what was cited is in neither."""
    attacher, image = Attacher(caller), png(64, 48)
    await definer.apply(model=MODEL, web_search=SEARCH, output_schema=json.dumps(SCHEMAS["flat"]))
    first = await attacher.converse("hello", image, agent="support", model=MODEL)
    await definer.apply(model=MODEL)
    second = await caller.converse("and now?", agent="support")
    _, request = caller.service.requests("talk")

    assert second.failure is None
    assert attacher.seen() == [[digest(image)]] * 2
    assert not {"tools", "response_format", "stop_server_tools_when"} & request.keys()
    assert first.finished.output_json in str(request["messages"][1]["content"])
    assert "example.com" not in str(request["messages"])


async def test_extractor_reads_a_document(definer: Definer, caller: Caller) -> None:
    """The example's limit of costs covers a document, whose text may fill the model's context."""
    attacher, invoice = Attacher(caller), pdf(3)
    (definition,) = read_definitions(EXAMPLES / "extractor.yaml")
    await definer.call("ApplyAgent", definition=definition)
    turn = await attacher.converse("Extract this invoice.", invoice, agent="extractor", model="")
    (entry,) = caller.service.entries("talk")

    assert turn.failure is None
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert jsonschema.Draft202012Validator(json.loads(definition.output_schema)).is_valid(
        json.loads(turn.finished.output_json)
    )
    assert attacher.seen() == [[digest(invoice)]]
    assert entry.cost is not None
    assert entry.upper_bound is not None
    assert 0 < entry.cost <= entry.upper_bound
