"""The packages as they are built: complete, and the source tree stays as it was."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
NOT_COPIED = shutil.ignore_patterns("*.egg-info", "build", "__pycache__", "node_modules")
NEEDED = {
    "clients/python": {
        "godoty/py.typed",
        "godoty/service_config.json",
        "godoty/v1/agent_service_pb2.pyi",
        "godoty/chat/__main__.py",
        "godoty/usage/__main__.py",
    },
    ".": {"godoty_service/py.typed", "openrouter_sandbox/data/models.json", "godoty_service/cli/app.py"},
}
each_package = pytest.mark.parametrize("name", NEEDED, ids=["client", "service"])


def source_of(name: str, directory: Path) -> Path:
    """Copy what a package is built from."""
    source = directory / "source"
    for package in {each.partition("/")[0] for each in NEEDED[name]}:
        shutil.copytree(REPOSITORY / name / package, source / package, ignore=NOT_COPIED)
    for each in ("pyproject.toml", "README.md"):
        if (REPOSITORY / name / each).exists():
            shutil.copy(REPOSITORY / name / each, source / each)
    return source


def pip(*arguments: str | Path) -> None:
    """Run pip as the Makefile does: what builds the packages is installed already."""
    quietly = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation")
    command = [sys.executable, "-m", "pip", arguments[0], *quietly, *arguments[1:]]
    subprocess.run(command, check=True, timeout=240)  # noqa: S603 - our own command


@each_package
def test_build_leaves_the_source_tree_as_it_was(tmp_path: Path, name: str) -> None:
    """`pip install DIRECTORY` writes no folder into it, and the wheel has what the package needs."""
    source = source_of(name, tmp_path)
    before = {path.relative_to(source) for path in source.rglob("*")}
    pip("wheel", "--wheel-dir", tmp_path / "wheels", source)

    assert {path.relative_to(source) for path in source.rglob("*")} == before
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    assert NEEDED[name] <= set(zipfile.ZipFile(wheel).namelist())


@each_package
def test_editable_install_needs_only_what_the_requirements_have(tmp_path: Path, name: str) -> None:
    """`make` installs both packages from their source trees, by what builds them alone."""
    source = source_of(name, tmp_path)
    pip("install", "--target", tmp_path / "installed", "--editable", source)

    (link,) = (tmp_path / "installed").glob("*.pth")
    assert link.read_text().strip() == str(source)
