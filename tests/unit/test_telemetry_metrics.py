import asyncio
import contextlib
import urllib.error
import urllib.request
from decimal import Decimal

import pytest
from prometheus_client import generate_latest

from godoty_service.telemetry.metrics import MAX_MODELS, Metrics
from godoty_service.telemetry.metrics_server import serve_metrics

METHOD = "/godoty.v1.AgentService/Converse"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(methods=[METHOD])


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=180) as page:  # noqa: S310 - our own page on this machine
        text: str = page.read().decode()
    return text


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_requests_are_counted_by_method_and_code(metrics: Metrics) -> None:
    """A finished call counts once, with its duration, under its method and status."""
    metrics.request_finished(METHOD, "OK", 0.3)

    assert sample(metrics, "godoty_requests_total", method=METHOD, code="OK") == 1
    assert sample(metrics, "godoty_request_duration_seconds_sum", method=METHOD, code="OK") == 0.3


def test_unknown_methods_share_one_label(metrics: Metrics) -> None:
    """Calls of methods that do not exist share one series."""
    metrics.request_finished("/evil/One", "UNIMPLEMENTED", 0.1)
    metrics.request_finished("/evil/Two", "UNIMPLEMENTED", 0.1)

    assert sample(metrics, "godoty_requests_total", method="unknown", code="UNIMPLEMENTED") == 2


def test_models_beyond_the_bound_are_other(metrics: Metrics) -> None:
    """The first 200 models have series of their own, later ones share "other"."""
    for number in range(MAX_MODELS + 3):
        metrics.tokens(f"m{number}", input_tokens=10)
    metrics.tokens("m0", input_tokens=1)

    assert sample(metrics, "godoty_tokens_total", model="m0", kind="input") == 11
    assert sample(metrics, "godoty_tokens_total", model="other", kind="input") == 30
    assert sample(metrics, "godoty_tokens_total", model=f"m{MAX_MODELS}", kind="input") is None


def test_endpoints_beyond_the_bound_are_other(metrics: Metrics) -> None:
    """Pairs of model and provider are bounded, too."""
    for number in range(MAX_MODELS + 1):
        metrics.first_token("m", f"p{number}", 0.2)

    name = "godoty_time_to_first_token_seconds_count"
    assert sample(metrics, name, model="other", provider="other") == 1
    assert sample(metrics, name, model="m", provider="p0") == 1


def test_each_kind_of_token_has_its_series(metrics: Metrics) -> None:
    """Each of the five kinds of tokens has a series, and an unused kind has none."""
    metrics.tokens("m", input_tokens=5, output_tokens=4, reasoning_tokens=3, cache_read_tokens=2)

    counts = {
        kind: sample(metrics, "godoty_tokens_total", model="m", kind=kind)
        for kind in ("input", "output", "reasoning", "cache_read", "cache_write")
    }
    assert counts == {"input": 5, "output": 4, "reasoning": 3, "cache_read": 2, "cache_write": None}


def test_cost_and_drift_are_summed_by_model(metrics: Metrics) -> None:
    """Costs are summed by source, and drift separately for bills over and under the catalogue."""
    metrics.cost("m", "BILLED", Decimal("0.25"))
    metrics.cost("m", "BILLED", Decimal("0.5"))
    metrics.drift("m", billed_usd=Decimal("0.5"), catalogue_usd=Decimal("0.25"))
    metrics.drift("m", billed_usd=Decimal("0.25"), catalogue_usd=Decimal("0.375"))

    assert sample(metrics, "godoty_cost_usd_total", model="m", source="BILLED") == 0.75
    assert sample(metrics, "godoty_price_drift_usd_total", model="m", direction="over") == 0.25
    assert sample(metrics, "godoty_price_drift_usd_total", model="m", direction="under") == 0.125


def test_tool_calls_are_counted_by_kind_and_outcome(metrics: Metrics) -> None:
    """Their durations by kind alone."""
    metrics.tool_call("mcp", "ok", 0.5)
    metrics.tool_call("mcp", "timeout", 2.0)

    assert sample(metrics, "godoty_tool_calls_total", kind="mcp", outcome="timeout") == 1
    assert sample(metrics, "godoty_tool_call_duration_seconds_sum", kind="mcp") == 2.5


def test_running_turns_go_up_and_down(metrics: Metrics) -> None:
    """A turn counts while it runs, also if it fails."""
    during = []
    with contextlib.suppress(asyncio.CancelledError), metrics.running_turn():
        during.append(sample(metrics, "godoty_running_turns"))
        raise asyncio.CancelledError

    assert during == [1]
    assert sample(metrics, "godoty_running_turns") == 0


def test_refused_account_is_an_alert_until_accepted(metrics: Metrics) -> None:
    """A refused account sets the alert and counts; the next served call clears it."""
    metrics.account_refused(402)
    assert sample(metrics, "godoty_provider_account_refused") == 1

    metrics.account_accepted()

    assert sample(metrics, "godoty_provider_account_refused") == 0
    assert sample(metrics, "godoty_provider_account_refusals_total", code="402") == 1


@pytest.mark.parametrize(
    ("code", "label"),
    [(429, "429"), ("timeout", "timeout"), (None, "unknown"), (4_290, "other"), ("no such model x", "other")],
)
def test_provider_errors_have_bounded_codes(metrics: Metrics, code: int | str | None, label: str) -> None:
    """Provider errors are labelled by HTTP status or a known word, never by a provider's text."""
    metrics.provider_error(code)

    assert sample(metrics, "godoty_provider_errors_total", code=label) == 1


def test_rejected_price_lists_are_counted_by_kind(metrics: Metrics) -> None:
    """Rejected lists of models and of a model's providers are counted separately."""
    metrics.price_list_rejected("models")
    metrics.price_list_rejected("providers")
    metrics.price_list_rejected("providers")

    assert sample(metrics, "godoty_price_lists_rejected_total", list="models") == 1
    assert sample(metrics, "godoty_price_lists_rejected_total", list="providers") == 2


def test_gauges_show_the_last_value(metrics: Metrics) -> None:
    """Pending and unresolved entries have their last values; the catalogue's age is computed at each scrape."""
    ages = iter([1.0, 61.0])
    metrics.watch_catalogue_age(lambda: next(ages))
    metrics.open_entries(7)
    metrics.unresolved_entries(2)
    first = sample(metrics, "godoty_catalogue_age_seconds")

    assert (first, sample(metrics, "godoty_catalogue_age_seconds")) == (1.0, 61.0)
    assert sample(metrics, "godoty_ledger_open_entries") == 7
    assert sample(metrics, "godoty_ledger_unresolved_entries") == 2


def test_no_label_names_a_tenant_session_or_user(metrics: Metrics) -> None:
    """No label identifies a caller."""
    metrics.request_finished(METHOD, "OK", 1)
    metrics.tokens("m", input_tokens=1)
    metrics.tool_call("mcp", "ok", 1)

    labels = {label for family in metrics.registry.collect() for s in family.samples for label in s.labels}
    assert labels <= {"method", "code", "le", "model", "kind", "provider", "source", "direction", "outcome"}


async def test_page_is_served_over_http_until_closed(metrics: Metrics) -> None:
    """The page shows the registry; after `close` the port is free."""
    metrics.open_entries(3)
    server = serve_metrics(listen="127.0.0.1:0", registry=metrics.registry)
    url = f"http://127.0.0.1:{server.port}/metrics"
    text = await asyncio.to_thread(fetch, url)
    await server.close()

    assert "godoty_ledger_open_entries 3.0" in text
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(fetch, url)
    again = serve_metrics(listen=f"127.0.0.1:{server.port}", registry=metrics.registry)
    await again.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::]"], ids=["v4", "v6"])
async def test_page_can_be_served_by_several_processes(metrics: Metrics, host: str) -> None:
    """Several servers share a page's port; it answers while one of them runs."""
    metrics.open_entries(3)
    first = serve_metrics(listen=f"{host}:0", registry=metrics.registry, shared=True)
    second = serve_metrics(listen=f"{host}:{first.port}", registry=metrics.registry, shared=True)
    await first.close()

    url = f"http://127.0.0.1:{second.port}/metrics"
    assert "godoty_ledger_open_entries 3.0" in await asyncio.to_thread(fetch, url)
    await second.close()


def test_catalogue_age_can_be_set(metrics: Metrics) -> None:
    """If it cannot be computed at a scrape, it is the last value that was set."""
    metrics.catalogue_age(1.0)
    metrics.catalogue_age(2.0)

    assert sample(metrics, "godoty_catalogue_age_seconds") == 2.0


@pytest.mark.parametrize("listen", ["9464", "host:", ":9464", "host:http"])
def test_listen_address_without_host_or_port_is_refused(metrics: Metrics, listen: str) -> None:
    """The error of an address that is not host:port has the address."""
    with pytest.raises(ValueError, match="host:port"):
        serve_metrics(listen=listen, registry=metrics.registry)


def test_cost_help_refers_to_the_ledger(metrics: Metrics) -> None:
    """The help says that the float is not the exact cost."""
    assert b"exact costs are in the ledger" in generate_latest(metrics.registry)
