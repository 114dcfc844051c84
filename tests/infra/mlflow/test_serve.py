"""A team's tracking server as infra/mlflow starts it: PostgreSQL, S3 and passwords; a run trains against it while both are killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import psycopg2
import pytest
import requests
import torch
from safetensors.torch import load_file

from fbm_dist.config import load
from fbm_dist.registry import load_encoder
from fbm_dist.registry.client import connect
from fbm_dist.run import pretrain
from fbm_dist.schema import Run
from fbm_dist.training.monitoring.metrics import read_lines
from tests.clusters.runs import ROOT, environment
from tests.datasets import write_dataset
from tests.infra.mlflow.servers import Postgres, Tracking, obstacle, postgres, program
from tests.object_store import s3_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ADMIN, PASSWORD, DATABASE_PASSWORD = "chief", "an-admin-password", "p@ss/word:of?the#database"
SECRET_KEY = "what-signs-the-forms"
STEPS = 8
CONFIG = str(ROOT / "configs/pretrain/fbm_cpu.yaml")
SMALL = ["objective.width=0.05", "training.global_batch=4", "training.micro_batch=4", "training.log_every=1"]
SMALL += ["training.picture_every=4", "training.preflight=off", "training.engine=torch", "data.clip.reverse=0.0"]


@dataclass
class Site:
    """What a site runs."""

    database: Postgres
    tracking: Tracking
    shards: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The servers; gone afterwards."""
    reason = obstacle()
    if reason:
        pytest.skip(reason)
    shards = write_dataset(tmp_path_factory.mktemp("shards"), clips=8)
    with (
        s3_server(),
        tempfile.TemporaryDirectory(prefix="pg") as short,
        postgres(Path(short), DATABASE_PASSWORD) as database,
    ):
        variables = {
            **database.variables(),
            "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow/artifacts",
            "MLFLOW_S3_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"],
            "AWS_ACCESS_KEY_ID": os.environ["AWS_ACCESS_KEY_ID"],
            "AWS_SECRET_ACCESS_KEY": os.environ["AWS_SECRET_ACCESS_KEY"],
            "AWS_DEFAULT_REGION": os.environ["AWS_DEFAULT_REGION"],
            "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": SECRET_KEY,
        }
        tracking = Tracking(tmp_path_factory.mktemp("tracking"), variables)
        try:
            tracking.start()
            yield Site(database, tracking, shards)
        finally:
            tracking.kill()


@pytest.fixture
def user(site: Site, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The three variables that a user of the server sets, and nothing of its database or store."""
    variables = {"MLFLOW_TRACKING_URI": site.tracking.uri}
    variables |= {"MLFLOW_TRACKING_USERNAME": ADMIN, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    return variables


def door(folder: Path, *overrides: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch/pretrain.py"), CONFIG, *SMALL, *overrides]
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment(**variables),
        timeout=200,
        check=False,
    )


def rows(site: Site, query: str) -> list[tuple[object, ...]]:
    """What PostgreSQL answers."""
    given = site.database.variables()
    connection = psycopg2.connect(
        host=given["PGHOST"], user=given["PGUSER"], password=given["PGPASSWORD"], dbname=given["PGDATABASE"]
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()
    finally:
        connection.close()


def assert_all_is_there_once(site: Site, folder: Path) -> None:
    """Every number of metrics.jsonl is one row of PostgreSQL, and there are no others."""
    run_id = json.loads((folder / "mlflow.json").read_text())["run_id"]
    wanted = {
        (key, line["step"], float(value))
        for line in read_lines(folder / "metrics.jsonl")
        for key, value in line.items()
        if key not in ("step", "time") and value is not None
    }
    found = rows(site, f"select key, step, value from metrics where run_uuid = '{run_id}'")
    assert {step for _, step, _ in wanted} == set(range(1, STEPS + 1))
    assert Counter((key, step) for key, step, _ in found).most_common(1)[0][1] == 1
    assert {(key, step) for key, step, _ in found} == {(key, step) for key, step, _ in wanted}
    assert {found_row[2] for found_row in found} == {wanted_row[2] for wanted_row in wanted}
    assert rows(site, f"select status from runs where run_uuid = '{run_id}'") == [("FINISHED",)]


def test_a_run_is_tracked_registered_and_pulled_by_name(site: Site, user: dict[str, str], tmp_path: Path) -> None:
    overrides = [f"data.path={site.shards}", "run.folder=run", f"training.steps={STEPS}"]
    ended = door(tmp_path, *overrides, "tracking.register_as=by-door", **user)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "registered: models:/by-door/1" in ended.stdout
    assert_all_is_there_once(site, tmp_path / "run")
    ours = load_encoder("models:/by-door@champion").state_dict()
    kept = load_file(tmp_path / "run/encoder/encoder.safetensors")
    assert ours.keys() == kept.keys()
    assert all(torch.equal(ours[name], kept[name]) for name in kept)
    # artifacts went through the server, which alone holds the store's key
    with pytest.MonkeyPatch.context() as patch:
        for name, value in site.tracking.variables.items():
            patch.setenv("AWS_ENDPOINT_URL" if name == "MLFLOW_S3_ENDPOINT_URL" else name, value)
        stored = fsspec.filesystem("s3", skip_instance_cache=True).find("mlflow/artifacts")
    assert any(path.endswith("encoder/encoder.safetensors") for path in stored)
    assert any("/pictures/" in path for path in stored)


def test_no_password_is_seen_in_the_process_list_or_the_log(site: Site) -> None:
    said = "\n".join(site.tracking.words()) + site.tracking.log()
    assert "mlflow" in said
    for name, value in site.tracking.variables.items():
        if "PASSWORD" in name or "SECRET" in name:
            assert value not in said, name


def test_a_wrong_password_is_one_line_that_names_the_variables(
    site: Site, user: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = {**user, "MLFLOW_TRACKING_PASSWORD": "a-wrong-password"}
    ended = door(tmp_path, f"data.path={site.shards}", "run.folder=run", **wrong)
    assert ended.returncode == 1
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    for word in (site.tracking.uri, "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        assert word in errors[0]
    assert "wrong-password" not in ended.stdout + ended.stderr
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    with pytest.raises(ValueError, match="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"):
        load_encoder("models:/anything@champion")


def test_a_guest_reads_and_is_told_when_more_is_not_allowed(
    site: Site, user: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The user is made by the request that README.md shows."""
    guest = {"username": "guest", "password": "a-guests-password"}
    address = f"{site.tracking.uri}/api/2.0/mlflow/users/create"
    assert requests.post(address, json=guest, auth=(ADMIN, PASSWORD), timeout=20).status_code == 200
    experiment = connect().create_experiment("of-the-chief")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "guest")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-guests-password")
    assert connect().get_experiment(experiment).name == "of-the-chief"
    overrides = [*SMALL, f"data.path={site.shards}", f"run.folder={tmp_path}/run", "tracking.experiment=of-the-chief"]
    with pytest.raises(ValueError, match="the user guest may not") as caught:
        pretrain(load(Run, CONFIG, overrides))
    assert "\n" not in str(caught.value)


def test_the_server_and_then_its_database_die_in_mid_run_and_nothing_is_lost(
    site: Site, user: dict[str, str], tmp_path: Path
) -> None:
    """kill -9 after step 2, back after step 4; the database crashes after step 5, and is back after step 7."""
    events = {2: site.tracking.kill, 4: site.tracking.start, 5: site.database.stop, 7: site.database.start}
    overrides = [*SMALL, f"data.path={site.shards}", f"run.folder={tmp_path}/run", f"training.steps={STEPS}"]
    run = load(Run, CONFIG, [*overrides, "tracking.register_as=by-survivor"])
    summary = pretrain(run, lambda metrics: events.get(int(metrics["step"]), lambda: None)())
    assert (summary.steps, summary.model_uri) == (STEPS, "models:/by-survivor/1")
    assert_all_is_there_once(site, tmp_path / "run")
    ours = load_encoder("models:/by-survivor/1").state_dict()
    kept = load_file(tmp_path / "run/encoder/encoder.safetensors")
    assert all(torch.equal(ours[name], kept[name]) for name in kept)
    pictures = connect().list_artifacts(str(summary.tracking_run), "pictures")
    assert len(pictures) == len(list((tmp_path / "run/pictures").glob("*.png"))) > 0


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"PGPASSWORD": ""}, "PGPASSWORD is not set; give that user's password"),
        ({"PGPASSWORD": "wrong"}, "password authentication failed"),
        ({"PGHOST": "/nowhere"}, "PostgreSQL at /nowhere"),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": "short"}, "fewer than 12 characters"),
        ({"MLFLOW_ARTIFACTS_DESTINATION": "/a/folder"}, "'/a/folder' is no s3://BUCKET/FOLDER"),
        ({"MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9"}, "the S3 store of mlflow"),
    ],
)
def test_what_is_wrong_with_a_setting_is_one_line(site: Site, changed: dict[str, str], told: str) -> None:
    ended = site.tracking.call(AWS_MAX_ATTEMPTS="1", **changed)
    assert ended.returncode in (1, 2)
    assert told in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


def test_told_to_stop_it_is_backed_up_restored_and_upgraded(site: Site, tmp_path: Path) -> None:
    """The last of this file. SIGTERM as `docker stop` sends it, then README.md's way: both databases from their dumps, and `upgrade`."""
    assert site.tracking.terminate() in (0, -15, 143)
    held = rows(site, "select count(*) from runs"), rows(site, "select count(*) from metrics")
    assert held[0][0][0] != 0

    def client(name: str, *words: str) -> None:
        command = [str(program(name)), *words]
        env = {**os.environ, **site.database.variables()}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    for name in ("mlflow", "mlflow_auth"):
        client("pg_dump", "--format", "custom", "--file", f"{tmp_path}/{name}.dump", name)
        client("dropdb", "--maintenance-db", "postgres", name)
        client("createdb", "--maintenance-db", "postgres", name)
        client("pg_restore", "--dbname", name, "--clean", "--if-exists", f"{tmp_path}/{name}.dump")
    upgraded = site.tracking.call("upgrade")
    assert upgraded.returncode == 0, upgraded.stderr
    assert (rows(site, "select count(*) from runs"), rows(site, "select count(*) from metrics")) == held
