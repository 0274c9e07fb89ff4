"""What images and files cost: the invoice is the ledger, and no bill is above its bound."""

from collections.abc import Callable
from decimal import Decimal

import pytest
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.bootstrap.components import open_components
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.ledger.states import CallState
from godoty_service.tenancy.policies import Policy
from tests.conftest import Start
from tests.e2e.attachments.conftest import Attacher, digest
from tests.e2e.turns.conftest import differences
from tests.support.media import pdf, png
from tests.support.service import Service

Attach = Callable[[Service], Attacher]
MODELS = ("openai/gpt-4o-mini", "openai/gpt-5-mini", "anthropic/claude-haiku-4.5", "google/gemini-2.5-flash")


async def check(attacher: Attacher, session_id: str = "talk") -> None:
    """Check that each line of the invoice is an entry of its cost, within the entry's bound."""
    entries = attacher.service.entries(session_id)
    lines = {each.generation_id: each for each in attacher.service.invoice(session_id)}
    assert {each.generation_id for each in entries if each.cost} == lines.keys()
    for each in entries:
        assert each.state is CallState.SETTLED
        if each.generation_id in lines:
            assert each.cost == lines[each.generation_id].cost
            assert each.upper_bound is not None
            assert each.cost is not None
            assert each.cost <= each.upper_bound, (each.requested_model, each.cost, each.upper_bound)


@pytest.mark.parametrize("model", MODELS)
async def test_images_are_billed_within_their_bound(attacher: Attacher, model: str) -> None:
    """Of any size and number; a larger image costs more tokens, and base64 counts as none."""
    sizes = [(8, 8), (640, 480), (4_000, 3_000), (30, 6_000)]
    for number, size in enumerate(sizes):
        await attacher.converse("look", png(*size, size=200_000), session_id=f"one-{number}", model=model)
        await check(attacher, f"one-{number}")
    await attacher.converse("look", *[png(*each) for each in sizes], model=model)
    await attacher.converse("@sandbox tool-loop calls=2 tool=calculator", model=model)
    await check(attacher)
    first = attacher.service.entries("one-0")[0]

    assert first.usage is not None
    assert (first.usage.input_tokens or 0) < 40_000
    assert (
        await differences(
            attacher.service.backends.mongodb_uri, attacher.service.database.name, attacher.service.tenant_id
        )
        == []
    )


@pytest.mark.parametrize("parser", ["cloudflare-ai", "mistral-ocr", "native"])
async def test_documents_are_billed_within_their_bound(serve: Start, attach: Attach, parser: str) -> None:
    """With the fee of the pinned parser for each page; the bound has it as well."""
    attacher = attach(await serve(pdf_parser=parser))
    await attacher.converse("read", pdf(7), pdf(3, compressed=True), model="anthropic/claude-haiku-4.5")
    await check(attacher)
    (entry,) = attacher.service.entries("talk")
    (request,) = attacher.service.requests("talk")
    usage = entry.usage
    assert entry.cost is not None
    assert usage is not None
    tokens = Decimal("0.000001") * (usage.input_tokens or 0) + Decimal("0.000005") * (usage.output_tokens or 0)

    assert request["plugins"] == [{"id": "file-parser", "pdf": {"engine": parser}}]
    # The sandbox does not look into compressed streams: it bills at least one page of the second document.
    assert entry.cost - tokens == (Decimal("0.016") if parser == "mistral-ocr" else 0)
    assert entry.tool_fees == (Decimal("0.016") if parser == "mistral-ocr" else None)


async def test_hard_budget_covers_images(attacher: Attacher) -> None:
    """It is reserved before the request, and refused if it does not cover the image."""
    service = attacher.service

    async def limit(amount: str) -> None:
        async with open_components(service.backends.settings(service.database.name)) as components:
            budget = Budget(window=BudgetWindow.DAY, limit=Decimal(amount), hard=True)
            await components.tenancy.policies.set(service.tenant_id, Policy(budgets=(budget,)))

    await limit("0.02")
    few = turn_pb.TurnLimits(max_output_tokens=16)  # the first call under a new budget counts twice
    assert (await attacher.converse("hello", model="openai/gpt-4o-mini", session_id="first", limits=few)).finished
    data = png(2_000, 2_000)
    turn = await attacher.converse("look", data, model="openai/gpt-4o-mini")
    assert turn.finished
    await check(attacher)
    turn = await attacher.converse("look", *[png(2_000, 2_000) for _ in range(9)], model="openai/gpt-4o-mini")
    assert turn.failure is not None
    assert turn.failure.reason == "BUDGET_SPENT"
    assert attacher.seen() == [[digest(data)]]


async def test_recorded_bill_of_a_document_is_the_charge(serve: Start, attach: Attach) -> None:
    """A recording of Mistral's OCR of one page: billed to the last digit, with a fee that no counter shows."""
    attacher = attach(await serve(pdf_parser="mistral-ocr"))
    await attacher.converse(
        "@sandbox replay file=json_2025-12_pdf-ocr-fee.json", pdf(1), model="openai/gpt-5.1-codex-mini"
    )
    (entry,) = attacher.service.entries("talk")

    assert entry.cost == Decimal("0.00216775")
    assert entry.upper_bound is not None
    assert entry.cost <= entry.upper_bound


async def test_unreadable_attachment_costs_nothing(attacher: Attacher) -> None:
    """Its bytes are lost while a request is sent: the provider gets no whole request, and the call is settled at 0."""
    uploaded = await attacher.upload(png(size=3_000_000))
    third = {"tenant_id": attacher.service.tenant_id, "_id": {"$regex": "/0002$"}}
    lost = attacher.service.database["attachment_chunks"].delete_one(third)
    assert lost.deleted_count == 1
    turn = await attacher.converse("look", uploaded.attachment_id)
    (entry,) = attacher.service.entries("talk")

    assert turn.failure is not None
    assert turn.failure.reason == "STORAGE_UNAVAILABLE"
    assert (entry.state, entry.cost) == (CallState.SETTLED, Decimal(0))
    assert attacher.service.invoice("talk") == []
