"""LiteLLM's proxy, configured for production by its documentation: no debug output, telemetry or database."""

import json
from pathlib import Path

from bench.contenders.contender import MODEL, clean_environment

KEY = "sk-bench"
MODULE = "litellm.proxy.proxy_cli"


def environment() -> dict[str, str]:
    """Return its environment; it uses its bundled price list, since there is no network."""
    return {
        **clean_environment(),
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def arguments(port: int, configuration: Path) -> list[str]:
    """Return the arguments of its module."""
    fixed = ["--host", "127.0.0.1", "--num_workers", "1", "--telemetry", "False"]
    return [*fixed, "--port", str(port), "--config", str(configuration)]


def write_configuration(folder: Path, upstream: str, provider_key: str) -> Path:
    """Write its configuration: one model, whose provider is the sandbox. JSON is YAML too."""
    path = folder / "litellm.yaml"
    parameters = {"model": f"openrouter/{MODEL}", "api_base": upstream, "api_key": provider_key}
    configuration = {
        "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"set_verbose": False, "telemetry": False, "request_timeout": 600},
    }
    path.write_text(json.dumps(configuration))
    return path
