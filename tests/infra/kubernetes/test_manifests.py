"""What one manifest names another one, the README or the repository has: secrets, claims, services, images, configs, ranks, rights."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from data_tools.schema import Prepare
from fbm_dist.config import load
from fbm_dist.schema import Run
from tests.clusters.runs import ROOT
from tests.infra.kubernetes.manifests import FOLDER, Tree, all_pods, amount, everything, only, read

PODS = pytest.mark.parametrize(("where", "spec"), all_pods(), ids=[where for where, _ in all_pods()])
SWEEP = ROOT / "launch/sweep.py"


def pinned(package: str) -> str:
    found = re.search(rf"^{package}==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found
    return found[1]


def variables(container: Tree) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container.get("env", [])}


@PODS
def test_a_pod_has_few_rights(where: str, spec: Tree) -> None:
    """The namespace's label (pod-security: restricted) refuses it otherwise."""
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}


@PODS
def test_memory_is_limited_and_holds_its_shared_part(where: str, spec: Tree) -> None:
    shared = sum(
        amount(v["emptyDir"]["sizeLimit"]) for v in spec.get("volumes", []) if "medium" in v.get("emptyDir", {})
    )
    for container in spec["containers"]:
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert amount(limits["memory"]) >= amount(requests["memory"]) > shared
        assert "cpu" in requests


@PODS
def test_what_a_pod_mounts_is_there(where: str, spec: Tree) -> None:
    claims = {found["metadata"]["name"] for found in everything() if found["kind"] == "PersistentVolumeClaim"}
    own = {
        template["metadata"]["name"]
        for found in everything()
        if where == f"{found['kind']} {found['metadata']['name']}"
        for template in found["spec"].get("volumeClaimTemplates", [])
    }
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    mounted = {mount["name"] for container in spec["containers"] for mount in container.get("volumeMounts", [])}
    assert mounted == volumes.keys() | own
    for volume in volumes.values():
        assert volume.get("persistentVolumeClaim", {}).get("claimName", "data") in claims
        assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), "else it fills the node's disk"


def test_secrets_are_referred_to_and_the_readme_makes_each_key() -> None:
    told = (FOLDER / "README.md").read_text().replace("\\\n", " ")
    made = {
        found[1]: set(re.findall(r"--from-literal=([\w-]+)=", found[2]))
        for found in re.finditer(r"create secret generic ([\w-]+)([^\n]*)", told)
    }
    used: dict[str, set[str]] = {}
    for where, spec in all_pods():
        for container in spec["containers"]:
            for name, value in variables(container).items():
                secret = value.get("secretKeyRef") if isinstance(value, dict) else None
                if secret:
                    used.setdefault(secret["name"], set()).add(secret["key"])
                assert secret or not re.search("PASSWORD|SECRET|KEY|TOKEN", name), f"{where}: {name} is written down"
    assert used == made


@PODS
def test_an_image_is_one_that_the_repository_builds_or_a_pinned_one(where: str, spec: Tree) -> None:
    for container in spec["containers"]:
        name, _, tag = container["image"].partition(":")
        if name == "fbm-dist":
            assert (ROOT / f"infra/docker/{tag}.Dockerfile").exists()
        elif name == "fbm-mlflow":
            assert tag == pinned("mlflow")
        else:
            assert container["image"] in (ROOT / "infra/mlflow/compose.yaml").read_text(), "the version of compose.yaml"


@PODS
def test_services_that_a_pod_calls_exist(where: str, spec: Tree) -> None:
    ports = {f["metadata"]["name"]: f["spec"]["ports"][0]["port"] for f in everything() if f["kind"] == "Service"}
    for container in spec["containers"]:
        values = variables(container)
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_S3_ENDPOINT_URL"):
            if name in values:
                host, _, port = values[name].removeprefix("http://").partition(":")
                assert ports[host] == int(port)
        assert values.get("PGHOST", "postgres") in ports


@pytest.mark.parametrize("name", ["postgres", "store", "mlflow"])
def test_a_service_finds_its_pods_at_their_port(name: str) -> None:
    kind = "Deployment" if name == "mlflow" else "StatefulSet"
    service, owner = only("Service", name)["spec"], only(kind, name)["spec"]
    assert owner["template"]["metadata"]["labels"] == owner["selector"]["matchLabels"] == service["selector"]
    assert owner.get("serviceName", name) == name
    container = owner["template"]["spec"]["containers"][0]
    assert [port["port"] for port in service["ports"]] == [port["containerPort"] for port in container["ports"]]
    assert {"readinessProbe", "livenessProbe"} <= container.keys()
    assert owner["template"]["spec"]["enableServiceLinks"] is False, "a Service called mlflow sets MLFLOW_PORT"
    policy = only("NetworkPolicy", "mlflow-data")["spec"]
    if name != "mlflow":
        assert name in policy["podSelector"]["matchExpressions"][0]["values"]
        assert {"port": service["ports"][0]["port"]} in policy["ingress"][0]["ports"]


def test_the_server_gets_all_that_its_script_requires() -> None:
    container = only("Deployment", "mlflow")["spec"]["template"]["spec"]["containers"][0]
    needed = re.findall(r"^require (\w+)", (ROOT / "infra/mlflow/serve.sh").read_text(), re.MULTILINE)
    assert set(needed) <= variables(container).keys()


def test_ranks_add_up() -> None:
    document = only("JobSet", "pretrain")
    job = document["spec"]["replicatedJobs"][0]
    spec = job["template"]["spec"]
    container = spec["template"]["spec"]["containers"][0]
    values = variables(container)
    assert job["replicas"] == 1
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"] == int(values["NODES"])
    assert container["resources"]["limits"]["nvidia.com/gpu"] == int(values["PROCESSES"])
    assert values["MASTER_ADDR"] == f"pretrain-{job['name']}-0-0.pretrain"
    assert document["spec"]["network"]["enableDNSHostnames"] is True
    assert container["ports"][0]["containerPort"] == int(values["MASTER_PORT"])
    door, config, *overrides = container["args"]
    assert door == "pretrain"
    run = load(Run, str(ROOT / config), overrides)
    world = int(values["NODES"]) * int(values["PROCESSES"])
    assert run.training.global_batch % (world * run.training.micro_batch) == 0


def test_a_config_error_ends_it_and_all_else_goes_on() -> None:
    """JobSet takes the first of its rules that matches; which rule of the Job had matched, the failure's message says by its index."""
    document = only("JobSet", "pretrain")["spec"]
    job = document["replicatedJobs"][0]["template"]["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never", "a pod failure policy asks for it"
    assert job["backoffLimit"] == 0
    rules = job["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["FailJob"] * 3
    codes = [rule["onExitCodes"]["values"] for rule in rules[:2]]
    assert codes == [[2], [75]], "launch/pretrain.py: a config error; stopped by a signal"
    name = job["template"]["spec"]["containers"][0]["name"]
    assert all(rule["onExitCodes"]["containerName"] == name for rule in rules[:2])
    assert rules[2]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    ends, goes_on = document["failurePolicy"]["rules"]
    assert (ends["action"], goes_on["action"]) == ("FailJobSet", "RestartJobSetAndIgnoreMaxRestarts")
    assert all(rule["onJobFailureReasons"] == ["PodFailurePolicy"] for rule in (ends, goes_on))
    (pattern,) = ends["onJobFailureMessagePatterns"]
    said = "Container pretrain for pod fbm/x failed with exit code {} matching FailJob rule at index {}"
    assert re.search(pattern, said.format(2, 0))
    assert not re.search(pattern, said.format(75, 1))
    assert document["failurePolicy"]["maxRestarts"] >= 3, "a rank that hung, a machine that failed"
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] >= 120


@pytest.mark.parametrize("name", ["prepare", "sweep"])
def test_a_ray_job_runs_a_command_that_exists(name: str) -> None:
    spec = only("RayJob", name)["spec"]
    assert spec["rayClusterSpec"]["rayVersion"] == pinned("ray")
    assert spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    words = shlex.split(spec["entrypoint"])
    config = next(n for n, word in enumerate(words) if word.endswith(".yaml"))
    assert words[-1] == "ray.address=auto"
    if name == "prepare":
        assert words[:config] == ["python", "-m", "data_tools", "prepare"]
        prepare = load(Prepare, str(ROOT / words[config]), words[config + 1 :])
        assert (prepare.executor, prepare.ray.address) == ("ray", "auto")
    else:
        assert words[:config] == ["python", "launch/sweep.py"]
        if not SWEEP.exists():
            pytest.skip("launch/sweep.py is not there yet")
        from fbm_dist.sweeps.config import Sweep

        assert load(Sweep, str(ROOT / words[config]), words[config + 1 :]).ray.address == "auto"


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("kustomization.yaml")), ids=lambda path: path.parent.name)
def test_a_kustomization_lists_what_lies_beside_it(path: Path) -> None:
    (found,) = read(path)
    assert set(found) <= {"apiVersion", "kind", "namespace", "resources"}
    assert (found["apiVersion"], found["kind"]) == ("kustomize.config.k8s.io/v1beta1", "Kustomization")
    assert found["namespace"] == only("Namespace", "fbm")["metadata"]["name"]
    there = {entry.name for entry in path.parent.iterdir() if entry.is_dir() or entry.suffix == ".yaml"}
    jobs = {"prepare.yaml", "pretrain.yaml", "sweep.yaml"} if path.parent == FOLDER else set()
    assert set(found["resources"]) == there - {"kustomization.yaml"} - jobs
