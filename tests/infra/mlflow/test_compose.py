"""infra/mlflow/compose.yaml against the compose specification's published schema, and for what no schema knows: secrets, rights, names."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from tests.clusters.runs import ROOT

FOLDER = ROOT / "infra/mlflow"
SCHEMA = "builtin_schemas/vendor/compose-spec.json"  # of the package check-jsonschema
INTERPOLATED = re.compile(r"\$\{(\w+)(:\?[^}]*)?\}")


@pytest.fixture(scope="module")
def text() -> str:
    return (FOLDER / "compose.yaml").read_text()


@pytest.fixture(scope="module")
def compose(text: str) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(text)
    return found


def example() -> dict[str, str]:
    """The settings of .env.example."""
    lines = [line for line in (FOLDER / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_it_is_what_the_specification_says(compose: dict[str, Any]) -> None:
    schema = json.loads((files("check_jsonschema") / SCHEMA).read_text())
    jsonschema.validate(compose, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**compose, "services": {"s3": {"imagine": "x"}}}, schema)


def test_every_variable_is_required_and_explained(text: str) -> None:
    used = dict(INTERPOLATED.findall(text))
    assert used.keys() == example().keys()
    assert all(advice.startswith(":?") for advice in used.values()), "compose starts with an empty value otherwise"


def test_nothing_secret_is_written_down(compose: dict[str, Any]) -> None:
    for name, value in example().items():
        assert not (value and re.search("PASSWORD|SECRET|KEY", name)), f"{name} has a value"
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            if re.search("PASSWORD|SECRET|KEY", name):
                assert INTERPOLATED.fullmatch(value), name


def test_services_keep_their_data_come_back_and_have_few_rights(compose: dict[str, Any]) -> None:
    named = set()
    for name, service in compose["services"].items():
        assert service["restart"] == "unless-stopped", name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.search(r":\d+\.\d+", service["image"]), f"{name}: a tag that does not move"
        assert set(service["networks"]) <= set(compose["networks"])
        named |= {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert set(service.get("depends_on", {})) <= set(compose["services"])
    assert named == set(compose["volumes"]) == {"postgres", "s3"}
    assert all(compose["networks"][name]["internal"] for name in ("database", "store"))
    assert [name for name, service in compose["services"].items() if "ports" in service] == ["mlflow"]


def test_the_server_is_the_one_that_is_tested(compose: dict[str, Any]) -> None:
    service = compose["services"]["mlflow"]
    version = re.search(r"^mlflow==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert version
    assert service["image"] == f"fbm-mlflow:{version[1]}"
    dockerfile = FOLDER / service["build"]["context"] / service["build"]["dockerfile"]
    assert 'ENTRYPOINT ["serve.sh"]' in dockerfile.read_text()
    assert service["user"] == "10001:10001"
    needed = set(re.findall(r"^require (\w+)", (FOLDER / "serve.sh").read_text(), re.MULTILINE))
    assert needed <= set(service["environment"])
