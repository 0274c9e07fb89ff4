"""Creates the peers' environments on first use under .local, from the pinned requirements beside this file."""

import hashlib
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_ENVIRONMENTS = _HERE.parent / ".local" / "bench"


def interpreter(name: str) -> str:
    """Return the Python of an environment, `litellm` or `strands`; install its packages if they are missing."""
    requirements = _HERE / f"requirements-{name}.txt"
    folder = _ENVIRONMENTS / f"venv-{name}"
    python, made_from = folder / "bin" / "python", folder / "made-from"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not made_from.exists() or made_from.read_text() != wanted:
        _call(sys.executable, "-m", "venv", str(folder))
        _call(str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(requirements))
        made_from.write_text(wanted)
    return str(python)


def versions(name: str, *packages: str) -> dict[str, str]:
    """Return the installed versions of an environment's packages."""
    script = "import sys, importlib.metadata as m; print(*(m.version(each) for each in sys.argv[1:]))"
    output = subprocess.run(  # noqa: S603 - the environment's own Python
        [interpreter(name), "-c", script, *packages], check=True, capture_output=True, text=True
    )
    return dict(zip(packages, output.stdout.split(), strict=True))


def _call(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603 - venv and pip
