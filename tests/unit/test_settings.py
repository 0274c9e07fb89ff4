"""Settings are read from the environment, and errors show no secrets."""

import os
from pathlib import Path

import pytest
from annotated_types import Le
from pydantic import SecretStr, ValidationError

from godoty_service.settings.settings import Settings
from godoty_service.tenancy.key_cache import FRESH_FOR


def test_defaults_match_the_documentation() -> None:
    """Settings that scripts rely on have the documented defaults."""
    settings = Settings()

    assert settings.listen == "127.0.0.1:50051"
    assert settings.workers == 1
    assert settings.mongodb_database == "godoty"
    assert settings.mongodb_driver == "pymongo"
    assert settings.openrouter_base_url == "https://openrouter.ai/api/v1"
    assert (settings.site_url, settings.app_name) == ("https://godoty.app", "Godoty")
    assert settings.max_text_bytes == 256 * 1024
    assert settings.max_request_bytes == settings.max_text_bytes + (1024 + 256) * 1024
    assert settings.local_dir == Path(".local")
    assert (settings.mongodb_uri, settings.openrouter_api_key, settings.metrics_listen) == (None, None, None)
    assert (settings.log_content, settings.trace_content) == (False, False)
    assert settings.lease > 2 * settings.heartbeat
    assert (settings.stream_heartbeat, settings.clock_tolerance) == (5, 60)


def test_longest_key_watch_stops_a_turn_in_time() -> None:
    """A turn may start with a cached key; its first check, and the read that this needs, end within 5 seconds."""
    (longest,) = (each.le for each in Settings.model_fields["key_watch_interval"].metadata if isinstance(each, Le))

    assert FRESH_FOR + float(str(longest)) + 0.5 <= 5.0


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting has its variable with the prefix `GODOTY_`; the provider's key has another."""
    for name, value in {
        "GODOTY_LISTEN": "[::]:1",
        "GODOTY_MONGODB_URI": "mongodb://m",
        "GODOTY_LEASE": "30.5",
        "GODOTY_REFLECTION": "0",
        "GODOTY_SOMETHING_ELSE": "x",
        "OPENROUTER_API_KEY": "sk-or-v1-secret",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings()

    assert (settings.listen, settings.mongodb_uri, settings.lease) == ("[::]:1", "mongodb://m", 30.5)
    assert settings.reflection is False
    assert settings.openrouter_api_key == SecretStr("sk-or-v1-secret")


def test_provider_key_has_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read from another variable."""
    monkeypatch.setenv("GODOTY_OPENROUTER_API_KEY", "sk-or-v1-secret")

    assert Settings().openrouter_api_key is None


def test_key_is_not_shown() -> None:
    """The text of the settings does not have the key."""
    settings = Settings(OPENROUTER_API_KEY="sk-or-v1-secret")

    assert "sk-or-v1-secret" not in f"{settings!r} {settings} {settings.model_dump()}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GODOTY_LEASE", "soon"),
        ("GODOTY_LEASE", "-1"),
        ("GODOTY_MONGODB_DRIVER", "sqlite"),
        ("GODOTY_MAX_MODEL_CALLS", "0"),
        ("GODOTY_WORKERS", "0"),
        ("GODOTY_LOG_FORMAT", "xml"),
    ],
)
def test_wrong_setting_is_refused_without_its_value(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the setting; its value, which may be a secret in the wrong place, is not repeated."""
    monkeypatch.setenv(name, f"{value}swordfish" if not value.lstrip("-").isdigit() else value)

    with pytest.raises(ValidationError) as caught:
        Settings()
    assert name.removeprefix("GODOTY_").lower() in str(caught.value).lower()
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://o"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://o"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://o", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_standard_variables_configure_traces(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, *, wanted: bool
) -> None:
    """Traces are enabled by OpenTelemetry's own variables."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert Settings().otlp_configured is wanted


def test_developer_environment_is_hidden() -> None:
    """Tests see no setting and no key of the shell that started them."""
    assert [name for name in os.environ if name.startswith(("OPENROUTER_", "OTEL_"))] == []
    assert [name for name in os.environ if name.startswith("GODOTY_") and not name.startswith("GODOTY_TEST_")] == []
