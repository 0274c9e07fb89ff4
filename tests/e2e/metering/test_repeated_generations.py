"""A generation id on several entries is found in pieces of any size, for one tenant or for all."""

from godoty_service.ledger.repeated_generations import INDEX, repeated_generations
from godoty_service.mongo.client import open_database
from tests.support.caller import Caller

IDS = ["gen-a", "gen-a", "gen-b", None, "gen-c", "gen-c", "gen-c", "gen-c", "gen-d", "", "gen-e", "gen-e"]
OTHERS = {0, 11}  # entries of another tenant


async def test_repeated_generations_are_found_in_pieces(caller: Caller, new_database: str) -> None:
    """Each entry of a repeated generation is found once; for one tenant also if the other entry is another's."""
    await caller.converse("hello")
    service = caller.service
    (document,) = service.entry_documents("talk")
    template = {name: value for name, value in document.items() if name not in ("_id", "number", "generation_id")}
    service.backends.mongo[new_database]["copies"].insert_many(
        template
        | {"_id": f"call_{place:02}", "number": place, "tenant_id": "other" if place in OTHERS else "own"}
        | ({} if generation is None else {"generation_id": generation})
        for place, generation in enumerate(IDS)
    )
    database = open_database(uri=service.backends.mongodb_uri, name=new_database)
    copies = database.collection("copies")
    await copies.ensure([INDEX])
    repeated = [0, 1, 4, 5, 6, 7, 10, 11]

    for piece in (1, 2, 3, 5, 100):
        all_tenants = [each.call_id async for each in repeated_generations(copies, None, piece=piece)]
        own = [each.call_id async for each in repeated_generations(copies, "own", piece=piece)]

        assert sorted(all_tenants) == [f"call_{place:02}" for place in repeated], piece
        assert sorted(own) == [f"call_{place:02}" for place in repeated if place not in OTHERS], piece
    await database.close()
