from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import grpc
from godoty import FieldViolation, GodotyError
from godoty.chat.advice import BY_REASON, advise
from godoty.chat.formatting import format_cache_savings, format_totals, printable, short
from godoty.chat.settings import read_env_file
from godoty.types import CacheSavings, TokenUsage, Totals
from godoty.v1.errors_pb2 import ErrorReason

if TYPE_CHECKING:
    from pathlib import Path


def test_money_is_shown_as_the_server_sent_it() -> None:
    """No digit is lost on the way to the screen."""
    cost = Decimal("0.0000000000000000000105")
    totals = Totals(cost_usd=cost, turns=1, model_calls=1, usage=TokenUsage(total_tokens=12))

    assert format_totals(totals) == "$0.0000000000000000000105, 1 turn, 12 tokens"


def test_open_calls_are_shown_beside_the_total() -> None:
    """Pending and unresolved calls are counted, with the bound where there is one."""
    totals = Totals(cost_usd=Decimal(1), turns=3, model_calls=4, pending_calls=1, unresolved_calls=2)

    assert format_totals(totals) == ("$1, 3 turns, tokens unknown, 1 call pending, 2 calls unresolved (no upper bound)")
    bounded = replace(totals, unresolved_bound_usd=Decimal("0.5"))
    assert format_totals(bounded).endswith("2 calls unresolved (at most $0.5)")


def test_savings_are_shown_if_there_are_any() -> None:
    """What is not known is not zero."""
    assert format_cache_savings(None) == ""
    assert format_cache_savings(CacheSavings(saved_usd=Decimal(0))) == ""
    known = CacheSavings(saved_usd=Decimal("-0.5"), model_calls=2)
    assert format_cache_savings(known) == "saved by prompt caches: $-0.5"
    unknown = CacheSavings(unknown_model_calls=1)
    assert format_cache_savings(unknown) == "saved by prompt caches: unknown (not known of 1 call)"


def test_nothing_yet_costs_nothing() -> None:
    """A session without calls has used no tokens, which is known."""
    assert format_totals(Totals(cost_usd=Decimal(0))) == "$0, 0 turns, 0 tokens"


def test_control_characters_are_removed() -> None:
    """Control characters are taken out; lines and letters of all languages stay."""
    assert printable("a\x1b[2J\r\x07\x9bb\n\tü 漢 👩\u200d🔬") == "a[2Jb\n\tü 漢 👩\u200d🔬"
    assert short("a\n b\x00  c" + "d" * 100, 8) == "a b cdd…"


def test_each_reason_has_its_advice() -> None:
    """A reason added to errors.proto gets its line here, too."""
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - an enum's method

    assert set(BY_REASON) == reasons - {"UNSPECIFIED"}


def test_advice_is_one_line() -> None:
    """What went wrong, what to do and when, on one line."""
    error = GodotyError(
        grpc.StatusCode.ABORTED,
        "another\nturn runs",
        reason="SESSION_BUSY",
        retry_delay=timedelta(seconds=1.5),
        field_violations=(FieldViolation("text", "must not be blank"),),
    )

    line = advise(error, target="host:1")

    assert line.startswith("SESSION_BUSY: another turn runs [text: must not be blank] — another turn")
    assert line.endswith("try again in 1.5 s")


def test_development_file_is_parsed(tmp_path: Path) -> None:
    """KEY=VALUE lines count, comments and other lines do not, and a missing file is empty."""
    path = tmp_path / "dev.env"
    path.write_text("# A=1\nGODOTY_LISTEN=127.0.0.1:1\n\nexport B='x=y'\nnothing\n")

    assert read_env_file(path) == {"GODOTY_LISTEN": "127.0.0.1:1", "B": "x=y"}
    assert read_env_file(tmp_path / "none") == {}
