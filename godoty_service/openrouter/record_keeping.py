"""Learns whether the upstream keeps generation records. OpenRouter does; most compatible gateways have no such path."""

from typing import Any, Literal
from urllib.parse import urlsplit

import structlog

from godoty_service.openrouter import exact

log = structlog.get_logger(__name__)

NO_SUCH_PATH = frozenset({404, 405, 501})
_NOT_FOUND = 404
_SUCCESS = 200

GenerationRecords = Literal["auto", "kept", "none"]


class RecordKeeping:
    """Whether records are kept: as configured, else as the answers of `/generation` say.

    OpenRouter answers 404 also for a record that is not there yet, but says so in JSON: `{"error": {"code": 404, …}}`.
    A path that does not exist answers 405, 501, or a 404 of another shape. Such an answer counts only while the
    upstream has not answered as OpenRouter does, and never for OpenRouter itself, which a proxy's error page may stand
    in for.
    """

    def __init__(self, *, base_url: str, configured: GenerationRecords) -> None:
        """Build it.

        Args:
            base_url: The upstream's.
            configured: "kept" or "none" decides; "auto" learns.
        """
        host = urlsplit(base_url).hostname or ""
        known = configured == "kept" or host == "openrouter.ai" or host.endswith(".openrouter.ai")
        self._is_configured_off = configured == "none"
        self._is_certain = known or self._is_configured_off
        self.kept = not self._is_configured_off

    @property
    def is_certain(self) -> bool:
        """Whether no answer can change it any more."""
        return self._is_certain

    def learn(self, status: int, body: bytes | None) -> None:
        """Take an answer of `/generation` into account; one that is too large to be read has no body."""
        if self._is_certain:
            return
        answer = exact.loads_or_none(body or b"")
        if _is_record(status, answer) or _is_not_yet(status, answer):
            self._is_certain = self.kept = True
        elif status in NO_SUCH_PATH and self.kept:
            self.kept = False
            log.warning("upstream_keeps_no_generation_records", status=status)


def _is_record(status: int, answer: Any) -> bool:
    return status == _SUCCESS and isinstance(answer, dict) and isinstance(answer.get("data"), dict)


def _is_not_yet(status: int, answer: Any) -> bool:
    error = answer.get("error") if isinstance(answer, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return status == _NOT_FOUND and type(code) is int and code == _NOT_FOUND
