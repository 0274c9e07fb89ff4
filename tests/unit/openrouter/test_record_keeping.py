"""Whether an upstream keeps generation records, by what its `/generation` answers."""

import pytest

from godoty_service.openrouter.record_keeping import RecordKeeping
from godoty_service.sandbox.malformed import ABSENT

GATEWAY = "http://127.0.0.1:4000/v1"
NOT_YET = (404, b'{"error":{"message":"Generation gen-1 not found","code":404}}')
RECORD = (200, b'{"data": {"total_cost": 0.1}}')


def learned(*answers: tuple[int, bytes | None], base_url: str = GATEWAY) -> RecordKeeping:
    """Return what is known after these answers."""
    records = RecordKeeping(base_url=base_url, configured="auto")
    for answer in answers:
        records.learn(*answer)
    return records


@pytest.mark.parametrize("name", ABSENT)
def test_answer_of_a_path_that_is_not_there_means_no_records(name: str) -> None:
    """A 404 of another shape than OpenRouter's, 405 and 501 come from upstreams without `/generation`."""
    assert not learned(ABSENT[name][:2]).kept


@pytest.mark.parametrize("answer", [NOT_YET, RECORD], ids=["not yet", "record"])
def test_openrouters_own_answer_is_certain(answer: tuple[int, bytes]) -> None:
    """OpenRouter's 404 for a record that is not there yet, or a record, proves that records are kept, for good."""
    records = learned(answer, (404, b"<html>"), (501, b""))

    assert (records.kept, records.is_certain) == (True, True)


@pytest.mark.parametrize("answer", [NOT_YET, RECORD], ids=["not yet", "record"])
def test_later_answer_of_openrouters_shape_corrects_an_earlier_page(answer: tuple[int, bytes]) -> None:
    """A proxy's 404 page was taken for a missing path: the first real answer corrects that."""
    assert learned((404, b"<html>"), answer).kept


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>a single-page application</html>"),
        (200, b"[" * 100_000),
        (200, None),
        (401, b'{"error":{"message":"User not found.","code":401}}'),
        (429, b""),
        (500, b""),
        (502, b"<html>"),
    ],
    ids=str,
)
def test_other_answers_say_nothing(answer: tuple[int, bytes | None]) -> None:
    """An outage, a refusal or an unreadable body leaves it open, and records are waited for."""
    records = learned(answer)

    assert (records.kept, records.is_certain) == (True, False)


@pytest.mark.parametrize("base_url", ["https://openrouter.ai/api/v1", "https://eu.openrouter.ai/api/v1"])
def test_openrouter_keeps_records_whatever_a_proxy_says(base_url: str) -> None:
    """No error page changes what is known of OpenRouter itself."""
    assert learned((404, b"<html>"), (405, b""), base_url=base_url).kept


def test_similar_host_is_not_openrouter() -> None:
    """A host whose name only ends like OpenRouter's is asked as any gateway."""
    assert not learned((404, b""), base_url="https://notopenrouter.ai/v1").kept


@pytest.mark.parametrize(("configured", "kept"), [("kept", True), ("none", False)])
def test_configured_answer_is_certain(configured: str, *, kept: bool) -> None:
    """GODOTY_GENERATION_RECORDS=kept or none decides, whatever the upstream answers."""
    records = RecordKeeping(base_url=GATEWAY, configured=configured)  # type: ignore[arg-type] # of the two values
    records.learn(*(ABSENT["fastapi"][:2] if kept else RECORD))

    assert (records.kept, records.is_certain) == (kept, True)
