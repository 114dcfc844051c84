"""The manifests of infra/kubernetes as values, and the pods in them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.clusters.runs import ROOT

FOLDER = ROOT / "infra/kubernetes"
Tree = dict[str, Any]


def read(path: Path) -> list[Tree]:
    """The documents of a file, anchors resolved."""
    return [document for document in YAML(typ="safe").load_all(path.read_text()) if document]


@cache
def everything() -> list[Tree]:
    """All objects that would be made, the Kustomizations left out. To be read alone: all tests get the same."""
    return [
        document
        for path in sorted(FOLDER.rglob("*.yaml"))
        for document in read(path)
        if document["kind"] != "Kustomization"
    ]


def only(kind: str, name: str) -> Tree:
    """The object of that kind and name."""
    return next(found for found in everything() if (found["kind"], found["metadata"]["name"]) == (kind, name))


def pods(document: Tree) -> Iterator[tuple[str, Tree]]:
    """(where, pod spec) of every pod that an object makes."""
    spec, name = document.get("spec", {}), f"{document['kind']} {document['metadata']['name']}"
    if document["kind"] in ("Deployment", "StatefulSet"):
        yield name, spec["template"]["spec"]
    elif document["kind"] == "JobSet":
        for job in spec["replicatedJobs"]:
            yield f"{name} {job['name']}", job["template"]["spec"]["template"]["spec"]
    elif document["kind"] == "RayJob":
        cluster = spec["rayClusterSpec"]
        yield f"{name} submitter", spec["submitterPodTemplate"]["spec"]
        yield f"{name} head", cluster["headGroupSpec"]["template"]["spec"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{name} {group['groupName']}", group["template"]["spec"]


def all_pods() -> list[tuple[str, Tree]]:
    """Of all objects."""
    return [pod for document in everything() for pod in pods(document)]


def amount(text: str) -> int:
    """Bytes of a Kubernetes quantity such as 64Gi."""
    for unit, power in (("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40)):
        if text.endswith(unit):
            return int(text.removesuffix(unit)) << power
    return int(text)
