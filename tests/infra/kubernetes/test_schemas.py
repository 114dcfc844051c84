"""Every manifest against the schema of its kind: Kubernetes' and JobSet's as published, KubeRay's fields as documented."""

from __future__ import annotations

import copy
import typing
from typing import Any

import kubernetes_validate
import pytest
from pydantic import BaseModel

from tests.infra.kubernetes.manifests import Tree, all_pods, everything, only

VERSION = "1.37"
CUSTOM = ("JobSet", "RayJob")
# From KubeRay's API reference (ray.io/v1, v1.6 to v1.7): the fields that these manifests may use, and of what type.
RAY_JOB = {
    "entrypoint": str,
    "backoffLimit": int,
    "activeDeadlineSeconds": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "submissionMode": str,
    "submitterPodTemplate": dict,
    "rayClusterSpec": dict,
    "runtimeEnvYAML": str,
    "suspend": bool,
    "metadata": dict,
}
RAY_CLUSTER = {"rayVersion": str, "authOptions": dict, "headGroupSpec": dict, "workerGroupSpecs": list}
HEAD = {"rayStartParams": dict, "template": dict, "serviceType": str}
WORKERS = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "numOfHosts": int,
    "rayStartParams": dict,
    "template": dict,
}
REQUIRED = {"rayStartParams", "template", "groupName", "minReplicas", "maxReplicas"}


def of_kubernetes(document: Tree) -> None:
    kubernetes_validate.validate(document, VERSION, strict=True)


def known(value: Any, kind: Any, where: str) -> None:
    """Only fields that the pydantic model `kind` has; pydantic itself drops the others in silence."""
    for option in typing.get_args(kind) or (kind,):
        if typing.get_origin(option) in (list, dict) or typing.get_origin(kind) in (list, dict):
            option = typing.get_args(kind)[-1] if typing.get_origin(kind) in (list, dict) else option
        if isinstance(value, list):
            inner = typing.get_args(option)[0] if typing.get_args(option) else option
            for number, item in enumerate(value):
                known(item, inner, f"{where}[{number}]")
            return
        if isinstance(option, type) and issubclass(option, BaseModel) and isinstance(value, dict):
            fields = {field.alias or name: field.annotation for name, field in option.model_fields.items()}
            for key, item in value.items():
                assert key in fields, f"{where}.{key} is no field of {option.__name__}"
                known(item, fields[key], f"{where}.{key}")
            return


def of_jobset(document: Tree) -> None:
    models = pytest.importorskip("kubeflow_trainer_api.models")
    found = models.JobsetV1alpha2JobSet.from_dict(document)
    assert found is not None
    known({k: v for k, v in document.items() if k != "metadata"}, models.JobsetV1alpha2JobSet, "JobSet")
    for job in document["spec"]["replicatedJobs"]:
        of_kubernetes({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **job["template"]})


def fields(value: Tree, allowed: dict[str, type], where: str) -> None:
    for key, item in value.items():
        assert key in allowed, f"{where}.{key}"
        assert type(item) is allowed[key], f"{where}.{key}: {item!r}"
    assert allowed.keys() & REQUIRED <= value.keys(), where


def of_ray(document: Tree) -> None:
    assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
    assert document["apiVersion"] == "ray.io/v1"
    spec = document["spec"]
    fields(spec, RAY_JOB, "spec")
    assert spec.get("submissionMode", "K8sJobMode") in ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
    cluster = spec["rayClusterSpec"]
    fields(cluster, RAY_CLUSTER, "rayClusterSpec")
    assert cluster["authOptions"] == {"mode": "token"}
    fields(cluster["headGroupSpec"], HEAD, "headGroupSpec")
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "strings, numbers too"
    for group in cluster["workerGroupSpecs"]:
        fields(group, WORKERS, "workerGroupSpecs")
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("document", everything(), ids=lambda it: f"{it['kind']}-{it['metadata']['name']}")
def test_a_manifest_is_what_its_kind_allows(document: Tree) -> None:
    {"JobSet": of_jobset, "RayJob": of_ray}.get(document["kind"], of_kubernetes)(document)


@pytest.mark.parametrize(("where", "spec"), all_pods(), ids=[where for where, _ in all_pods()])
def test_a_pod_is_what_kubernetes_allows(where: str, spec: Tree) -> None:
    """Those in custom resources, too, which Kubernetes itself checks only when they are made."""
    of_kubernetes({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec})


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Deployment", "mlflow", ("spec", "replica"), 1),
        ("JobSet", "pretrain", ("spec", "failurePolicy", "maxRestart"), 1),
        ("JobSet", "pretrain", ("spec", "replicatedJobs", 0, "template", "spec", "completion"), 2),
        ("RayJob", "prepare", ("spec", "rayClusterSpec", "workers"), 1),
        ("RayJob", "prepare", ("spec", "backoffLimit"), "20"),
    ],
)
def test_a_slip_is_found(kind: str, name: str, path: tuple[Any, ...], value: Any) -> None:
    document = copy.deepcopy(only(kind, name))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises((AssertionError, kubernetes_validate.ValidationError)):
        test_a_manifest_is_what_its_kind_allows(document)
