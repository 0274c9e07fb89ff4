#!/bin/sh
# Copies the files that the protos import, from the installed googleapis-common-protos to .local/protos: the second module
# of buf.yaml, and an include path of protoc. So the repository holds no copy of another project's file.
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-.venv/bin/python}" - <<'END'
import re
from importlib.resources import files
from pathlib import Path

texts = [path.read_text() for path in Path("protos").rglob("*.proto")]
for folder, name in sorted({found for text in texts for found in re.findall(r'^import "(google/api)/(\w+\.proto)";', text, re.M)}):
    target = Path(".local/protos", folder, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(files(folder.replace("/", ".")).joinpath(name).read_bytes())
END
