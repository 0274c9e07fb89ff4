"""The programs of the READMEs run as pasted, in an environment that has only the built package."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zipfile
from decimal import Decimal
from pathlib import Path

import pytest

from tests.clients.polyglot.programs import CLIENTS, run
from tests.support.service import Service, format_amount

_GO_MODULE = "github.com/godoty/godoty/clients/go"
_TSC = CLIENTS / "typescript/node_modules/typescript/bin/tsc"
_TYPES = CLIENTS / "typescript/node_modules/@types"


def _program(folder: str, language: str) -> str:
    """Return the first program of a README."""
    text = (CLIENTS / folder / "README.md").read_text()
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


async def _assert_prints_cost(service: Service, folder: Path, *command: str, **environment: str) -> None:
    """Run a program; it must print an answer, and the cost that the ledger has."""
    environment |= {"GODOTY_LISTEN": service.target, "GODOTY_API_KEY": service.api_key}
    code, out = await run(folder, *command, **environment)
    assert code == 0, out
    answer, _, cost = out.strip().rpartition("\n")
    (session_id,) = service.database["sessions"].distinct("session_id", {"tenant_id": service.tenant_id})
    entries = service.entries(session_id)
    assert cost == f"{format_amount(sum((each.cost or Decimal() for each in entries), Decimal()))} USD"
    assert answer


@pytest.fixture
def go_module(tmp_path: Path) -> tuple[Path, str]:
    """A module proxy that has the module alone, and its version."""
    files = sorted(each for each in (CLIENTS / "go").rglob("*") if each.is_file())
    content = hashlib.sha256(b"".join(each.read_bytes() for each in files)).hexdigest()[:12]
    version = f"v0.1.0-test.h{content}"
    proxy = tmp_path / "proxy"
    folder = proxy / _GO_MODULE / "@v"
    folder.mkdir(parents=True)
    (folder / f"{version}.info").write_text(json.dumps({"Version": version}))
    shutil.copy(CLIENTS / "go" / "go.mod", folder / f"{version}.mod")
    with zipfile.ZipFile(folder / f"{version}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for each in files:
            archive.write(each, f"{_GO_MODULE}@{version}/{each.relative_to(CLIENTS / 'go')}")
    return proxy, version


async def test_go_program_runs_as_pasted(service: Service, go_module: tuple[Path, str], tmp_path: Path) -> None:
    """The module is resolved by its path, from a module proxy."""
    proxy, version = go_module
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "main.go").write_text(_program("go", "go"))
    (folder / "go.mod").write_text("module example\n\ngo 1.26.0\n")
    _, before = await run("go", "go", "env", "GOPROXY")
    _, cache = await run("go", "go", "env", "GOMODCACHE")
    environment = {"GOPROXY": f"{proxy.as_uri()},{before.strip()}", "GONOSUMDB": _GO_MODULE}
    try:
        code, out = await run(folder, "go", "get", f"{_GO_MODULE}@{version}", **environment)
        assert code == 0, out
        await _assert_prints_cost(service, folder, "go", "run", ".", **environment)
    finally:
        for each in (f"{_GO_MODULE}@{version}", f"cache/download/{_GO_MODULE}"):
            await run(folder, "chmod", "-R", "u+w", f"{cache.strip()}/{each}")
            shutil.rmtree(Path(cache.strip()) / each, ignore_errors=True)


async def test_typescript_program_runs_as_pasted(service: Service, tmp_path: Path) -> None:
    """The package has the built library, its types and nothing else; the program also is TypeScript."""
    pack = ("npm", "pack", "--silent", "--json", "--ignore-scripts")  # it is built already
    code, out = await run("typescript", *pack, "--pack-destination", str(tmp_path))
    assert code == 0, out
    (packed,) = json.loads(out)
    names = {each["path"] for each in packed["files"]}
    assert {"package.json", "README.md", "service_config.json", "dist/index.js", "dist/index.d.ts"} <= names
    assert not [each for each in names if "/" in each and not re.fullmatch(r"dist/[\w/]+(\.d\.ts|\.js)", each)]

    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    install = ("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefer-offline", f"./{packed['filename']}")
    code, out = await run(tmp_path, *install)
    assert code == 0, out
    (tmp_path / "hello.js").write_text(_program("typescript", "js"))
    await _assert_prints_cost(service, tmp_path, "node", "hello.js")
    (tmp_path / "hello.ts").write_text(_program("typescript", "js"))
    options = ("--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--types", "node")
    code, out = await run(tmp_path, "node", str(_TSC), *options, "--typeRoots", str(_TYPES), "hello.ts")
    assert (code, out) == (0, "")


async def test_java_program_runs_as_pasted(service: Service, tmp_path: Path) -> None:
    """By the README's command, with the jar and what it depends on."""
    (tmp_path / "Hello.java").write_text(_program("java", "java"))
    target = CLIENTS / "java/target"
    libraries = (target / "classpath").read_text().strip()
    with zipfile.ZipFile(target / "godoty-client-0.1.0.jar") as archive:
        assert not [each for each in archive.namelist() if "examples" in each or "conformance" in each]
    classpath = os.pathsep.join((str(target / "godoty-client-0.1.0.jar"), libraries))
    await _assert_prints_cost(service, tmp_path, "java", "-cp", classpath, "Hello.java")
