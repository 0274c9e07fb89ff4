"""Writes the gRPC service config, by which channels retry: `generate_service_config.py [--check]`.

The methods are those that the protos mark as NO_SIDE_EFFECTS, and CancelTurn, which may be repeated. Converse, which
charges, is retried by the clients alone, with its request id. Each client ships a copy of the file. With --check it
writes nothing and exits with status 1 if a copy is stale.
"""

import json
import sys
from pathlib import Path
from typing import Any

from godoty.v1 import admin_service_pb2, agent_definition_service_pb2, agent_service_pb2, billing_service_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

NAME = "service_config.json"
ROOT = Path(__file__).parents[1]
TARGETS = [
    ROOT / "docs" / NAME,
    ROOT / "clients" / "python" / "godoty" / NAME,
    ROOT / "clients" / "go" / NAME,
    ROOT / "clients" / "typescript" / NAME,
    ROOT / "clients" / "java" / "src" / "main" / "resources" / "app" / "godoty" / NAME,
]
FILES: list[FileDescriptor] = [
    each.DESCRIPTOR
    for each in (agent_service_pb2, agent_definition_service_pb2, billing_service_pb2, admin_service_pb2)
]
REPEATABLE = {"CancelTurn"}
# At most three retries, after up to 0.2, 0.4 and 0.8 s: the election of a new primary takes longer, and its error has
# a delay of its own.
RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.2s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
# A channel stops retrying while about half of its calls fail.
RETRY_THROTTLING = {"maxTokens": 20, "tokenRatio": 0.5}


def names() -> list[dict[str, str]]:
    """Return the methods that may be sent again."""
    return [
        {"service": service.full_name, "method": method.name}
        for file in FILES
        for service in file.services_by_name.values()
        for method in service.methods
        if method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS or method.name in REPEATABLE
    ]


def text() -> str:
    """Return the text of the service config."""
    config: dict[str, Any] = {
        "methodConfig": [{"name": names(), "retryPolicy": RETRY_POLICY}],
        "retryThrottling": RETRY_THROTTLING,
    }
    return json.dumps(config, indent=2) + "\n"


def main() -> None:
    """Write the copies, or check them."""
    wanted = text()
    for target in TARGETS:
        if "--check" not in sys.argv[1:]:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(wanted, encoding="utf-8")
        elif not target.exists() or target.read_text(encoding="utf-8") != wanted:
            sys.exit(f"stale: {target.relative_to(ROOT)}; run make docs")


if __name__ == "__main__":
    main()
