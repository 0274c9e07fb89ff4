"""The desk: what an exchange needs at hand."""

from dataclasses import dataclass
from pathlib import Path

from godoty_service.sandbox.catalogue import Catalogue
from godoty_service.sandbox.connections import Connections
from godoty_service.sandbox.generation import Books
from godoty_service.sandbox.holds import Holds
from godoty_service.sandbox.journal import Journal
from godoty_service.sandbox.reasoning_trail import ReasoningTrail
from godoty_service.sandbox.scenario_book import ScenarioBook


@dataclass(frozen=True)
class Desk:
    """The parts that one sandbox's requests share.

    Attributes:
        catalogue: The models.
        books: The invoice, the records and the settings.
        scenarios: What is planned.
        journal: Where requests are noted.
        connections: The open responses.
        holds: What held answers may produce.
        trail: The reasoning that was sent.
        recorded: The folder of recordings, if any.
    """

    catalogue: Catalogue
    books: Books
    scenarios: ScenarioBook
    journal: Journal
    connections: Connections
    holds: Holds
    trail: ReasoningTrail
    recorded: Path | None
