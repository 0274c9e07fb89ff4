"""Converts money, calls and totals to messages of metering.proto."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from godoty.v1 import metering_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from godoty_service.ledger.cache_savings import CacheSavings, saved_by
from godoty_service.ledger.entries import CallPurpose, CostSource, ModelCall
from godoty_service.ledger.latency import LatencySummary, ProviderLatency
from godoty_service.ledger.states import CallState
from godoty_service.ledger.totals import Run, Totals
from godoty_service.pricing.money import format_usd
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.pricing.unit_prices import PriceEvidence

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND, _MICROSECOND = timedelta(seconds=1), timedelta(microseconds=1)
_STATES = {f"CALL_STATE_{state.name}": state for state in CallState}
# The states by their numbers in the contract.
STATES = {number: _STATES[name] for name, number in pb.CallState.items() if name in _STATES}
PURPOSES = {None: "CALL_PURPOSE_UNSPECIFIED"} | {purpose: f"CALL_PURPOSE_{purpose.name}" for purpose in CallPurpose}
_SOURCES = {source: pb.CostSource.Value(f"COST_SOURCE_{source.name}") for source in CostSource}


def call_message(call: ModelCall) -> pb.ModelCall:
    """Convert a model call."""
    message = pb.ModelCall(
        call_id=call.call_id,
        session_id=call.session_id,
        turn_id=call.turn_id,
        number=call.number,
        state=f"CALL_STATE_{call.state.name}",
        purpose=PURPOSES[call.purpose],
        agent=call.agent,
        agent_version=call.agent_version,
        agent_path=call.agent_path or "",
        api_key_id=call.api_key_id or "",
        requested_model=call.requested_model,
        served_model=call.served_model or "",
        served_slug=call.served_slug or "",
        provider=call.provider or "",
        generation_id=call.generation_id or "",
        usage=usage_message(call.usage) if call.usage is not None else None,
        cost_usd=format_usd(call.cost),
        catalogue_cost_usd=format_usd(call.catalogue_cost),
        upper_bound_usd=format_usd(call.upper_bound),
        upstream_cost_usd=format_usd(call.upstream_cost),
        tool_fees_usd=format_usd(call.tool_fees),
        byok=call.is_byok,
        provider_key_id=call.provider_key_id,
        unit_prices=_prices_message(call, call.evidence) if call.evidence is not None else None,
        start_time=timestamp(call.start_time),
        settle_time=timestamp(call.settle_time) if call.settle_time is not None else None,
        time_to_first_token=duration(call.time_to_first_token),
        duration=duration(call.duration),
        attempt=call.attempt,
        finish_reason=call.finish_reason or "",
        error=call.error or "",
        error_message=call.error_message or "",
        cache_savings_usd=format_usd(saved_by(call)),
    )
    if call.cost_source is not None:
        message.cost_source = _SOURCES[call.cost_source]  # type: ignore[assignment] # a number at run time
    return message


def usage_message(usage: TokenUsage) -> pb.TokenUsage:
    """Convert counters; unknown ones stay unset."""
    return pb.TokenUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        audio_input_tokens=usage.audio_input_tokens,
        image_output_tokens=usage.image_output_tokens,
        web_search_requests=usage.web_search_requests,
        audio_cache_read_tokens=usage.audio_cache_read_tokens,
        audio_output_tokens=usage.audio_output_tokens,
        video_input_tokens=usage.video_input_tokens,
        server_tool_calls=usage.server_tool_calls,
    )


def totals_message(totals: Totals) -> pb.Totals:
    """Convert totals."""
    return pb.Totals(
        cost_usd=format_usd(totals.cost),
        usage=usage_message(totals.usage),
        model_calls=totals.model_calls,
        turns=totals.turns,
        pending_calls=totals.pending_calls,
        unresolved_calls=totals.unresolved_calls,
        unresolved_bound_usd=None if totals.unbounded_calls else format_usd(totals.unresolved_bound),
    )


def cache_savings_message(savings: CacheSavings) -> pb.CacheSavings:
    """Convert savings; if none is known, the sum is unknown, not zero."""
    saved = None if savings.unknown_calls and not savings.calls else savings.saved
    return pb.CacheSavings(
        saved_usd=format_usd(saved), model_calls=savings.calls, unknown_model_calls=savings.unknown_calls
    )


def run_message(run: Run) -> pb.Run:
    """Convert a run."""
    return pb.Run(time=timestamp(run.time), model=run.model, cost_usd=format_usd(run.cost), turn_id=run.turn_id)


def latency_messages(latencies: Iterable[ProviderLatency]) -> list[pb.ProviderLatency]:
    """Convert the latencies of providers."""
    return [
        pb.ProviderLatency(
            provider=each.provider,
            model_calls=each.calls,
            time_to_first_token=_summary_message(each.time_to_first_token),
            duration=_summary_message(each.duration),
        )
        for each in latencies
    ]


def timestamp(time: datetime) -> Timestamp:
    """Convert a time."""
    since = time - _EPOCH  # FromDatetime takes six times as long, and session metrics contain fifty times
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def duration(time: timedelta | None) -> Duration | None:
    """Convert a duration; None stays unset."""
    if time is None:
        return None
    return Duration(seconds=time // _SECOND, nanos=time % _SECOND // _MICROSECOND * 1000)


def _summary_message(summary: LatencySummary | None) -> pb.LatencySummary | None:
    if summary is None:
        return None
    return pb.LatencySummary(median=duration(summary.median), p95=duration(summary.p95), last=duration(summary.last))


def _prices_message(call: ModelCall, evidence: PriceEvidence) -> pb.UnitPrices:
    """Convert the unit prices of a call: those in force at its time, for the length of its prompt."""
    prompt_tokens = (call.usage.input_tokens if call.usage is not None else None) or 0
    rates = evidence.prices.effective(at=call.start_time, prompt_tokens=prompt_tokens)
    provider_time = evidence.provider_prices_time
    return pb.UnitPrices(
        input_usd=format_usd(rates.prompt),
        output_usd=format_usd(rates.completion),
        cache_read_usd=format_usd(rates.cache_read_price()),
        cache_write_usd=format_usd(rates.input_cache_write),
        request_usd=format_usd(rates.request),
        audio_input_usd=format_usd(rates.audio),
        audio_cache_read_usd=format_usd(rates.input_audio_cache),
        audio_output_usd=format_usd(rates.audio_output),
        image_output_usd=format_usd(rates.image_output),
        web_search_usd=format_usd(rates.web_search),
        catalogue_hash=evidence.catalogue_hash,
        catalogue_time=timestamp(evidence.catalogue_time),
        provider_prices_hash=evidence.provider_prices_hash or "",
        provider_prices_time=timestamp(provider_time) if provider_time is not None else None,
    )
