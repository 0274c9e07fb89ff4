import subprocess

import pytest

from tests.clients.polyglot.examples import CLIENTS


@pytest.fixture(scope="session", autouse=True)
def _installed() -> None:
    """Installs what TypeScript's package-lock.json names."""
    if not (CLIENTS / "typescript/node_modules").is_dir():
        subprocess.run(["npm", "ci", "--silent"], cwd=CLIENTS / "typescript", check=True)  # noqa: S607 - found on PATH
