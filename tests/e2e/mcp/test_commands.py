"""`godoty mcp`, by way of a running server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from openrouter_sandbox.mcp.app import SECRET
from tests.support.command import Command

if TYPE_CHECKING:
    from tests.e2e.mcp.conftest import Mcp, Tenant


async def test_server_is_applied_shown_checked_and_deleted(tenant: Tenant, mcp: Mcp, tmp_path: Path) -> None:
    """With a secret from the environment, which no command prints; what `show` prints can be applied again."""

    async def godoty(*arguments: str, code: int = 0) -> str:
        known = {"GODOTY_LISTEN": tenant.caller.service.target, "GODOTY_API_KEY": tenant.key, "THE_KEY": SECRET}
        out = tmp_path / "out"
        out.unlink(missing_ok=True)
        command = Command("mcp", *arguments, environment={**os.environ, **known}, out=out, err=out)
        assert await command.wait() == code, out.read_text()
        return out.read_text()

    path = tmp_path / "crm.yaml"
    path.write_text(f"name: crm\nurl: {mcp.url('/secret')}\nheaders: {{X-Api-Key: '${{THE_KEY}}'}}\ndeny: [flood]\n")
    outputs = [await godoty("apply", "-f", str(path)), await godoty("apply", "-f", str(path))]
    assert outputs == ["crm applied\n", "crm unchanged\n"]
    shown = tmp_path / "shown.yaml"
    shown.write_text(await godoty("show", "crm"))
    outputs += [shown.read_text(), await godoty("apply", "-f", str(shown)), await godoty("list")]
    assert outputs[3] == "crm unchanged\n"
    assert mcp.url("/secret") in outputs[4]

    outputs.append(await godoty("check", "crm"))
    assert "crm_echo" in outputs[-1]
    assert "deny lists" in outputs[-1]
    path.write_text(f"name: crm\nurl: {mcp.url('/nothing')}\n")
    await godoty("apply", "-f", str(path))
    outputs.append(await godoty("check", "crm", code=1))
    assert "HTTP 404" in outputs[-1]
    assert await godoty("delete", "crm") == "deleted\n"
    assert "MCP_SERVER_NOT_FOUND" in await godoty("show", "crm", code=1)
    assert SECRET not in "".join(outputs)
