"""The forms for issues are what GitHub takes, and ask for what an answer needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

FOLDER = Path(__file__).parent.parent / ".github" / "ISSUE_TEMPLATE"
FORMS = sorted(path for path in FOLDER.glob("*.y*ml") if path.stem != "config")
KINDS = {
    "markdown": {"value"},
    "textarea": {"label"},
    "input": {"label"},
    "dropdown": {"label", "options"},
    "checkboxes": {"label", "options"},
}


def form(path: Path) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_there_is_a_form_for_bugs_features_and_questions() -> None:
    assert {path.stem for path in FORMS} == {"bug", "feature", "question"}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_has_what_github_asks_for(path: Path) -> None:
    found = form(path)
    assert set(found) <= {"name", "description", "title", "labels", "assignees", "projects", "type", "body"}
    assert all(isinstance(found[key], str) and found[key] for key in ("name", "description"))
    fields = found["body"]
    assert any(field["type"] != "markdown" for field in fields)
    names = [field["id"] for field in fields if field["type"] != "markdown"]
    assert len(names) == len(set(names)), "an id names one field"
    for field in fields:
        assert set(field) <= {"type", "id", "attributes", "validations"}
        assert KINDS[field["type"]] <= set(field["attributes"]), field
        options = field["attributes"].get("options", [])
        assert len(options) == len(set(options))
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_github_s_own_schemas_take_them() -> None:
    """Of issue forms and of their config, as check-jsonschema brings them along."""
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is missing: pip install -e '.[dev]'")
    for schema, paths in (("issue-forms", FORMS), ("issue-config", [FOLDER / "config.yml"])):
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.github-{schema}", *paths]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_what_a_form_names_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    root = FOLDER.parent.parent
    for name in ("docs/troubleshooting.md", "docs/adding-a-family.md"):
        assert name not in text or (root / name).exists()
    assert "SECURITY.md" not in text or (root / "SECURITY.md").exists()
