"""The packages as they are built: complete, and the source tree stays as it was."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
NOT_COPIED = shutil.ignore_patterns("*.egg-info", "build", "__pycache__", "node_modules")


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("clients/python", {"godoty/py.typed", "godoty/v1/agent_service_pb2.pyi", "godoty/chat/__main__.py"}),
        (".", {"godoty_service/py.typed", "godoty_service/sandbox/data/models.json", "godoty_service/cli/main.py"}),
    ],
    ids=["client", "service"],
)
def test_build_leaves_the_source_tree_as_it_was(tmp_path: Path, name: str, needed: set[str]) -> None:
    """`pip install DIRECTORY` writes no folder into it, and the wheel has what the package needs."""
    source = tmp_path / "source"
    package = min(needed).partition("/")[0]
    shutil.copytree(REPOSITORY / name / package, source / package, ignore=NOT_COPIED)
    for each in ("pyproject.toml", "README.md"):
        if (REPOSITORY / name / each).exists():
            shutil.copy(REPOSITORY / name / each, source / each)
    before = {path.relative_to(source) for path in source.rglob("*")}
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps")
    subprocess.run(  # noqa: S603 - our own command
        [*pip, "--no-build-isolation", "--wheel-dir", tmp_path / "wheels", source], check=True, timeout=120
    )

    assert {path.relative_to(source) for path in source.rglob("*")} == before
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    assert needed <= set(zipfile.ZipFile(wheel).namelist())
