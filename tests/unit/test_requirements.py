"""What is installed is what was compiled: each requirement has its version and hashes, and installs check them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILED = sorted(path.name for path in ROOT.glob("requirements*.txt"))


def requirements(name: str) -> list[str]:
    """Return the requirements of a file, each on a line of its own."""
    joined = (ROOT / name).read_text().replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("name", COMPILED)
def test_each_requirement_is_pinned_with_hashes(name: str) -> None:
    """One version, at least one hash, and no address of a registry."""
    found = requirements(name)

    assert found
    for each in found:
        assert re.match(r"[a-z0-9._\[\]-]+==[^ ]+ ", each), each
        assert "--hash=sha256:" in each, each
        assert "://" not in each


def test_all_requirements_are_compiled() -> None:
    """The service's, the developers', and those of the build."""
    assert {"requirements.txt", "requirements-build.txt", "requirements-dev.txt"} <= set(COMPILED)


@pytest.mark.parametrize("name", ["Makefile", "Dockerfile"])
def test_each_install_checks_hashes_or_adds_nothing(name: str) -> None:
    """`pip install` either checks hashes or installs our own packages alone, which a build without isolation makes."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    installs = [line for line in text.splitlines() if re.search(r"pip install", line) and not line.startswith("#")]
    installs = [each for part in installs for each in re.findall(r"pip install[^&]*", part)]

    assert installs
    for each in installs:
        own = "--no-deps" in each and "--no-build-isolation" in each
        tool = each.rstrip().endswith("--quiet uv")  # compiles requirements anew, and is in none of them
        assert "--require-hashes" in each or own or tool, each


def test_no_failed_test_is_run_again() -> None:
    """A test that fails now and then is a fault, which a second run would hide: neither CI nor pytest makes one."""
    assert not any(re.search(r"rerun|flaky|retry", each) for name in COMPILED for each in requirements(name))
    assert (ROOT / ".ci" / "run").read_text().count("make test") == 1
    for name in (".ci/run", "Makefile", "pyproject.toml"):
        assert not re.search(r"--reruns|--last-failed|--lf\b|--ff\b", (ROOT / name).read_text()), name
