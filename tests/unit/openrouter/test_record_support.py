"""Whether an upstream retains generation records, by the answers of its `/generation`."""

import pytest

from godoty_service.openrouter.api import RecordSupport
from openrouter_sandbox.billing.malformed import ABSENT

GATEWAY = "http://127.0.0.1:4000/v1"
NOT_YET = (404, b'{"error":{"message":"Generation gen-1 not found","code":404}}')
RECORD = (200, b'{"data": {"total_cost": 0.1}}')


def learned(*answers: tuple[int, bytes | None], base_url: str = GATEWAY) -> RecordSupport:
    """Return what is known after these answers."""
    records = RecordSupport(base_url=base_url, configured="auto")
    for answer in answers:
        records.learn(*answer)
    return records


@pytest.mark.parametrize("name", ABSENT)
def test_answer_of_missing_path_means_no_records(name: str) -> None:
    """A 404 of another shape than OpenRouter's, 405 and 501 come from upstreams without `/generation`."""
    assert not learned(ABSENT[name][:2]).available


@pytest.mark.parametrize("answer", [NOT_YET, RECORD], ids=["not yet", "record"])
def test_answer_in_openrouters_shape_is_certain(answer: tuple[int, bytes]) -> None:
    """A record, or a 404 for a record that does not exist yet, proves for good that records are retained."""
    records = learned(answer, (404, b"<html>"), (501, b""))

    assert (records.available, records.is_certain) == (True, True)


@pytest.mark.parametrize("answer", [NOT_YET, RECORD], ids=["not yet", "record"])
def test_later_answer_in_openrouters_shape_corrects_earlier_page(answer: tuple[int, bytes]) -> None:
    """A proxy's 404 page was mistaken for a missing path: the first real answer corrects that."""
    assert learned((404, b"<html>"), answer).available


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
def test_other_answers_decide_nothing(answer: tuple[int, bytes | None]) -> None:
    """After an outage, a rejection or an unreadable body, records are still awaited."""
    records = learned(answer)

    assert (records.available, records.is_certain) == (True, False)


@pytest.mark.parametrize("base_url", ["https://openrouter.ai/api/v1", "https://eu.openrouter.ai/api/v1"])
def test_openrouter_retains_records_despite_proxy_errors(base_url: str) -> None:
    """No error page changes what is known of OpenRouter itself."""
    assert learned((404, b"<html>"), (405, b""), base_url=base_url).available


def test_similar_host_is_not_openrouter() -> None:
    """A host whose name only ends like OpenRouter's is treated as any gateway."""
    assert not learned((404, b""), base_url="https://notopenrouter.ai/v1").available


@pytest.mark.parametrize(("configured", "available"), [("kept", True), ("none", False)])
def test_configuration_is_certain(configured: str, *, available: bool) -> None:
    """GODOTY_GENERATION_RECORDS=kept or none decides, regardless of the upstream's answers."""
    records = RecordSupport(base_url=GATEWAY, configured=configured)  # type: ignore[arg-type] # of the two values
    records.learn(*(ABSENT["fastapi"][:2] if available else RECORD))

    assert (records.available, records.is_certain) == (available, True)
