"""A Slurm cluster on the nodes of `tests/clusters/nodes.py`: munged and slurmd on each, slurmctld on the first. Real daemons."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clusters.nodes import Cluster, cluster, obstacle, program

PATIENCE = 30.0  # seconds for the daemons to find each other
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo")

CONFIG = """
ClusterName=tests
SlurmctldHost={first}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
KillOnBadExit=1
KillWait=5
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmdParameters=config_overrides
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP
"""


class Slurm:
    """The daemons, and the commands that a user has. They die with the cluster."""

    def __init__(self, nodes: Cluster, folder: Path, env: dict[str, str]) -> None:
        self.nodes, self.first, self.folder = nodes.nodes, nodes.nodes[0], folder
        folder.mkdir()
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        lines = [f"NodeName={node.name} NodeAddr={node.address} CPUs=1 State=UNKNOWN" for node in nodes.nodes]
        config = CONFIG.format(first=self.first.name, folder=folder, nodes="\n".join(lines))
        (folder / "slurm.conf").write_text(config)
        self.env = {**env, "SLURM_CONF": str(folder / "slurm.conf")}
        for node in nodes.nodes:
            munged = [
                program("munged"),
                "--force",
                "--key-file",
                str(key),
                "--log-file",
                f"{folder}/munged-{node.name}.log",
            ]
            code, told = node.run(["sh", "-c", f"mkdir -p /run/munge && {' '.join(munged)}"], folder, self.env)
            assert code == 0, told
        self.first.start([program("slurmctld"), "-D"], folder, self.env, folder / "slurmctld.out")
        for node in nodes.nodes:
            node.start([program("slurmd"), "-D"], folder, self.env, folder / f"slurmd-{node.name}.out")
        self._meet(len(nodes.nodes))

    def _meet(self, number: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._num_idle() != number:
            logs = [path.read_text()[-1500:] for path in sorted(self.folder.glob("*.log"))]
            assert time.monotonic() < deadline, "the nodes do not come up\n" + "\n".join(logs)
            time.sleep(0.2)

    def _num_idle(self) -> int:
        """Nodes that are free; 0 as long as slurmctld does not answer."""
        code, told = self.first.run(["sinfo", "-h", "-t", "idle", "-o", "%D"], self.folder, self.env)
        return int(told) if code == 0 and told.strip() else 0

    def call(self, *command: str, folder: Path | None = None) -> str:
        """A user's command on the first node; its output.

        Raises:
            AssertionError: it failed.
        """
        code, told = self.first.run(command, folder or self.folder, self.env)
        assert code == 0, f"{' '.join(command)}: {told}"
        return told.strip()

    def submit(self, *words: str, folder: Path) -> str:
        """`sbatch` from `folder`; the job's number."""
        return self.call("sbatch", "--parsable", *words, folder=folder)

    def job(self, number: str) -> dict[str, str]:
        """The job's record as `scontrol` has it: JobState, Restarts, ExitCode, Comment ..."""
        words = self.call("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, number: str, until: Callable[[dict[str, str]], bool], timeout: float) -> dict[str, str]:
        """The job's record once it satisfies `until`.

        Raises:
            AssertionError: it does not, after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not until(found := self.job(number)):
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
        return found


@contextmanager
def two_nodes(folder: Path, env: dict[str, str]) -> Iterator[Slurm]:
    """Two nodes with Slurm's daemons, whose users have the environment `env`; gone afterwards. Skips where Slurm is missing."""
    reason = obstacle(*PROGRAMS)
    if reason:
        pytest.skip(reason)
    (folder / "cluster").mkdir()
    with cluster(folder / "cluster") as nodes:
        yield Slurm(nodes, folder / "daemons", env)
