"""docs/debugging.md has each RPC, once, with the same call by both tools; `make clients` runs the calls."""

import importlib
import pkgutil
import re

from godoty import v1

from tests.clients.debugging_page import ROOT, RPC, TOOLS, steps

RPCS = sorted(
    f"{service.name}/{method.name}"
    for module in pkgutil.iter_modules(v1.__path__)
    if module.name.endswith("_service_pb2")
    for service in importlib.import_module(f"godoty.v1.{module.name}").DESCRIPTOR.services_by_name.values()
    for method in service.methods
)


def test_each_rpc_is_on_the_page_once() -> None:
    """A new RPC needs its two lines."""
    shown = [step for step in steps() if step.chapter == "Every RPC" and len(set(step.commands.values())) > 1]
    for tool in TOOLS:
        assert sorted(rpc for step in shown for rpc in RPC.findall(step.commands[tool])) == RPCS

    assert [step.title for step in shown] == [RPC.findall(step.commands["buf"])[0].split("/")[1] for step in shown]
    assert all(step.expected for step in shown)


def test_both_tools_make_the_same_call() -> None:
    """The lines of a step differ by the tool's own options alone."""
    calls = [step.commands for step in steps() if RPC.search(step.commands["grpcurl"])]

    assert calls
    for each in calls:
        as_buf = re.sub(r"\bgrpcurl -plaintext ", "buf curl --protocol grpc --http2-prior-knowledge ", each["grpcurl"])
        as_buf = as_buf.replace(" -d @ ", " -d @- ").replace("$GODOTY_LISTEN godoty", "http://$GODOTY_LISTEN/godoty")
        assert as_buf == each["buf"]


def test_buf_is_the_one_that_generates_the_clients() -> None:
    """One version, in all places."""
    (version,) = re.findall(r"^BUF=(.*)$", (ROOT / "clients/generate.sh").read_text(), re.MULTILINE)

    assert set(re.findall(r"@bufbuild/buf@([\d.]+)", (ROOT / "docs/debugging.md").read_text())) == {version}
