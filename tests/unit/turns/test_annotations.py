"""Citations in a turn's log: stored, counted, and of the turn's own agent alone."""

import pytest

from godoty_service.citations import MAX_BYTES, Citation
from godoty_service.errors import TurnTooLarge
from godoty_service.turns.event_log.answer_listener import AnswerListener
from godoty_service.turns.event_log.codec import event_from_document, event_to_document
from godoty_service.turns.event_log.events import Annotations, TextDelta
from godoty_service.turns.event_log.log import LARGEST_LOG, EventLog

PAGES = (Citation(url="https://a.example/", title="ü", content="c", start=1, end=4), Citation(url="http://b.example/"))


def test_citations_survive_the_log() -> None:
    """As one event; of a sub-agent there are none."""
    document = event_to_document(Annotations(PAGES))

    assert event_from_document(document) == Annotations(PAGES)
    assert event_from_document({"sub_agent": ["helper#1", document]}) == TextDelta("")


def test_citations_count_for_the_size_of_a_log() -> None:
    """A log that is full takes no more of them."""
    log = EventLog()
    pages = tuple(Citation(url=f"https://a.example/{number}", content="x" * 1000) for number in range(100))
    size = sum(each.size for each in pages)
    assert size <= MAX_BYTES
    for _ in range(LARGEST_LOG // (size + 2048)):
        log.append(Annotations(pages))

    with pytest.raises(TurnTooLarge):
        log.append(Annotations(pages * 3))


def test_listener_appends_citations_and_passes_them_on() -> None:
    """Until it is closed."""
    log, cited = EventLog(), list[Citation]()
    listener = AnswerListener(log, on_citations=cited.extend)
    listener.citations(PAGES)
    listener.close()
    listener.citations(PAGES[:1])

    assert log.last == Annotations(PAGES[:1])
    assert cited == list(PAGES)
