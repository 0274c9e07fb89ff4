"""The programs of the READMEs run as pasted, in an environment that has only the built package."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from decimal import Decimal
from pathlib import Path

import pytest

from tests.clients.polyglot.programs import CLIENTS, MAVEN, run
from tests.support.service import Service, format_amount

_GO_MODULE = "github.com/godoty/godoty/clients/go"
_TSC = CLIENTS / "typescript/node_modules/typescript/bin/tsc"
_TYPES = CLIENTS / "typescript/node_modules/@types"
_JAR = CLIENTS / "java/target/godoty-client-0.1.0.jar"
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>example</groupId>
  <artifactId>example</artifactId>
  <version>1</version>
  <properties>
    <maven.compiler.release>17</maven.compiler.release>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
  </properties>
  <dependencies>{dependency}</dependencies>
  <build>
    <plugins>
      <plugin><artifactId>maven-compiler-plugin</artifactId><version>3.14.0</version></plugin>
      <plugin><groupId>org.codehaus.mojo</groupId><artifactId>exec-maven-plugin</artifactId><version>3.5.0</version></plugin>
    </plugins>
  </build>
</project>
"""


def _blocks(folder: str, language: str) -> list[str]:
    """Return the blocks of a README in a language."""
    text = (CLIENTS / folder / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


async def _assert_print_costs(service: Service, folder: Path, *commands: tuple[str, ...], **environment: str) -> None:
    """Run the programs of a README, each as another tenant: the model calls the tool of the second one."""
    hello, tools = commands
    await _assert_prints_cost(service, folder, hello, environment)
    script = {"directive": "@sandbox tool-loop calls=2 tool=find_order"}
    service.backends.ask(lambda: service.backends.sandbox.scenarios.add(script))
    other = service.another_tenant()
    session_id = await _assert_prints_cost(other, folder, tools, environment)
    assert len(other.entries(session_id)) == 2
    assert '"sent"' in str(other.requests(session_id)[-1]["messages"][-1]["content"])


async def _assert_prints_cost(
    service: Service, folder: Path, command: tuple[str, ...], environment: dict[str, str]
) -> str:
    """Run a program; it must print an answer, and the cost that the ledger has. Return its session."""
    settings = {"GODOTY_LISTEN": service.target, "GODOTY_API_KEY": service.api_key}
    code, out = await run(folder, *command, **(environment | settings))
    assert code == 0, out
    answer, _, cost = out.strip().rpartition("\n")
    (session_id,) = service.database["sessions"].distinct("session_id", {"tenant_id": service.tenant_id})
    entries = service.entries(session_id)
    assert cost == f"{format_amount(sum((each.cost or Decimal() for each in entries), Decimal()))} USD"
    assert answer
    return str(session_id)


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


async def test_go_programs_run_as_pasted(service: Service, go_module: tuple[Path, str], tmp_path: Path) -> None:
    """The module is resolved by its path, from a module proxy."""
    proxy, version = go_module
    folder = tmp_path / "program"
    names = ("hello", "orders")
    for name, program in zip(names, _blocks("go", "go"), strict=True):
        (folder / name).mkdir(parents=True)
        (folder / name / "main.go").write_text(program)
    (folder / "go.mod").write_text("module example\n\ngo 1.26.0\n")
    _, before = await run("go", "go", "env", "GOPROXY")
    _, cache = await run("go", "go", "env", "GOMODCACHE")
    environment = {"GOPROXY": f"{proxy.as_uri()},{before.strip()}", "GONOSUMDB": _GO_MODULE}
    try:
        code, out = await run(folder, "go", "get", f"{_GO_MODULE}@{version}", **environment)
        assert code == 0, out
        await _assert_print_costs(service, folder, *(("go", "run", f"./{each}") for each in names), **environment)
    finally:
        for each in (f"{_GO_MODULE}@{version}", f"cache/download/{_GO_MODULE}"):
            await run(folder, "chmod", "-R", "u+w", f"{cache.strip()}/{each}")
            shutil.rmtree(Path(cache.strip()) / each, ignore_errors=True)


async def test_typescript_programs_run_as_pasted(service: Service, tmp_path: Path) -> None:
    """The package has the built library, its types and nothing else; the first program also is TypeScript."""
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
    hello, orders = _blocks("typescript", "js")
    (tmp_path / "hello.js").write_text(hello)
    (tmp_path / "orders.js").write_text(orders)
    await _assert_print_costs(service, tmp_path, ("node", "hello.js"), ("node", "orders.js"))
    (tmp_path / "hello.ts").write_text(hello)
    (tmp_path / "orders.ts").write_text(orders)
    options = ("--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--types", "node")
    code, out = await run(tmp_path, "node", str(_TSC), *options, "--typeRoots", str(_TYPES), "hello.ts", "orders.ts")
    assert (code, out) == (0, "")


async def test_java_programs_run_as_pasted(service: Service, tmp_path: Path) -> None:
    """In a Maven project with the artifact of the local repository, which has no examples."""
    with zipfile.ZipFile(_JAR) as archive:
        assert not [each for each in archive.namelist() if "examples" in each or "conformance" in each]
    sources = tmp_path / "src/main/java"
    sources.mkdir(parents=True)
    names = ("Hello", "Orders")
    for name, program in zip(names, _blocks("java", "java"), strict=True):
        (sources / f"{name}.java").write_text(program)
    (dependency,) = _blocks("java", "xml")
    (tmp_path / "pom.xml").write_text(_POM.format(dependency=dependency))
    commands = [(*MAVEN, "compile", "exec:java", f"-Dexec.mainClass={each}") for each in names]
    await _assert_print_costs(service, tmp_path, *commands)
