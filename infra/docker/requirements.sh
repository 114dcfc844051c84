#!/usr/bin/env bash
# The packages that pyproject.toml asks for, one a line, without the project itself: requirements.sh PYPROJECT [EXTRA...].
set -euo pipefail
python3 - "$@" <<'PYTHON'
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
for extra in sys.argv[2:]:
    if extra not in extras:
        sys.exit(f"error: pyproject.toml has no extra {extra}; it has {', '.join(extras)}")
print("\n".join(project["dependencies"] + [line for extra in sys.argv[2:] for line in extras[extra]]))
PYTHON
