"""The clients in other languages resume an export of the ledger: against scripted streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from godoty.v1 import billing_service_pb2 as pb
from godoty.v1 import ledger_pb2, metering_pb2

from tests.clients.polyglot.scripted_turns import Failure, ScriptedExports, serving

if TYPE_CHECKING:
    from tests.clients.polyglot.programs import Language

_LOST = Failure(grpc.StatusCode.UNAVAILABLE)


def _response(cursor: str, *calls: str, as_of: int = 0) -> pb.ExportLedgerResponse:
    entries = [ledger_pb2.LedgerEntry(call=metering_pb2.ModelCall(call_id=each)) for each in calls]
    return pb.ExportLedgerResponse(entries=entries, cursor=cursor, as_of={"seconds": as_of} if as_of else None)


async def test_lost_export_goes_on_after_the_last_response(language: Language) -> None:
    """No entry comes twice, none is missing; an error of Godoty's ends it."""
    exports = ScriptedExports(
        [
            [_LOST],
            [_response("A", "c1", "c2", as_of=12), _LOST],
            [Failure(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", 0.01)],
            [_response("B", "c3", as_of=12), Failure(grpc.StatusCode.INTERNAL)],
            [_response("C")],
            [_response("A", "c1"), Failure(grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")],
        ]
    )
    async with serving(language, exports=exports) as (_, program):
        result = await program.ask("export")
        asked = [each.cursor for each in exports.asked]
        failed = await program.ask("export", cursor="Z")

    assert result.done == {"entries": ["c1", "c2", "c3"], "cursor": "C", "as_of": 12_000}
    assert asked[-4:] == ["", "A", "A", "B"]  # before, gRPC itself repeats the call that has had no response
    assert set(asked[:-4]) <= {""}
    assert exports.asked[-1].cursor == "Z"
    assert failed.error["reason"] == "SCOPE_MISSING"


async def test_export_that_is_left_has_the_position_to_go_on(language: Language) -> None:
    """After the responses that were read whole: the entries of the last one come again."""
    first_half, second_half = _response("A", "c1", "c2", as_of=12), _response("B", "c3", "c4")
    exports = ScriptedExports([[first_half, second_half], [second_half]])
    async with serving(language, exports=exports) as (_, program):
        first = await program.ask("export", stop_after=3)
        second = await program.ask("export", cursor=first.done["cursor"])

    assert (first.done["entries"], first.done["cursor"]) == (["c1", "c2", "c3"], "A")
    assert (second.done["entries"], second.done["cursor"]) == (["c3", "c4"], "B")
