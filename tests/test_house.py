"""The files for people beside the code: the citation file is valid and names every family, the security policy names what exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from ruamel.yaml import YAML

from data_tools.schema import Prepare
from fbm_dist.objectives.families import Pretraining

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def citation() -> dict[str, Any]:
    return YAML(typ="safe").load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_citation_file(citation: dict[str, Any]) -> None:
    """Keys and types that the Citation File Format 1.2.0 asks for."""
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert {"message", "title", "authors", "license", "version"} <= set(citation)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [citation[key] for key in ("title", "version", "license")] == [
        project[key] for key in ("name", "version", "license")
    ]
    for one in (citation, *citation["references"]):
        assert one["authors"], one["title"]
        assert all("family-names" in author or "name" in author for author in one["authors"])
    for reference in citation["references"]:
        assert reference["type"] in ("article", "conference-paper")
        assert isinstance(reference["year"], int)
        assert all(re.fullmatch(r"arXiv:\d{4}\.\d{5}", i["value"]) for i in reference.get("identifiers", ()))


def test_every_family_is_somebody_s(citation: dict[str, Any]) -> None:
    notes = " ".join(reference["notes"] for reference in citation["references"])
    for config in get_args(get_args(Pretraining)[0]):
        family = get_args(config.model_fields["family"].annotation)[0]
        assert re.search(rf"\b{family}\b", notes), family


def test_the_security_policy_names_what_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / link).exists(), link
    for key in ("time_limit", "film_time_limit", "memory_limit", "max_pixels"):
        assert f"`{key}`" in text
        assert key in Prepare.model_fields, key
    for path in re.findall(r"`((?:fbm_dist|data_tools)/[\w/]+\.py)`", text):
        assert (ROOT / path).exists(), path
