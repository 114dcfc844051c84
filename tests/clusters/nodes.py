"""Machines for tests: each node has its own network, host name, process table and ssh server; a bridge joins them.

Every node lives in namespaces of its own (network, UTS, mount, IPC, PID). The first process of its PID namespace is the node's
life: when it is killed the kernel kills everything on the node. It dies with the process that made the cluster, so nothing is
left behind, and nothing is written outside the cluster's folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # Debian keeps ip and sshd out of a user's PATH
NAMESPACES = ("--net", "--uts", "--mount", "--ipc", "--pid")
PATIENCE = 10.0  # seconds for a node to come up

# What a machine has for itself: /run, shared memory, its name, and (below) /etc/hosts and ssh's settings.
BOOT = """
set -e
hostname {name}
ip link set lo up
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mkdir /run/sshd
mount --bind {folder}/hosts /etc/hosts
mount --bind {folder}/ssh_config /etc/ssh/ssh_config
echo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip address add {address}/24 dev eth0
ip link set eth0 up
exec {sshd} -D -e -f {folder}/{name}/sshd_config
"""
SWITCH = "set -e; ip link add bridge type bridge; ip link set bridge up; echo up; exec sleep infinity"

# A dead machine says no goodbye: without the two last lines ssh, pdsh and the deepspeed runner wait for it for hours.
SSH_CONFIG = """
Host *
  IdentityFile {folder}/key
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking yes
  BatchMode yes
  ServerAliveInterval 2
  ServerAliveCountMax 3
"""
SSHD_CONFIG = """
Port 22
ListenAddress {address}
HostKey {folder}/{name}/host_key
AuthorizedKeysFile {folder}/key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
"""


def program(name: str) -> str:
    """Where a program is, /usr/sbin included.

    Raises:
        FileNotFoundError: it is not installed.
    """
    found = shutil.which(name, path=SEARCHED)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed")
    return found


def obstacle(*programs: str) -> str | None:
    """Why no cluster can be made here, or whichever of `programs` is missing; None: nothing is in the way."""
    for name in ("ip", "sshd", "ssh-keygen", "unshare", "nsenter", "setpriv", *programs):
        if shutil.which(name, path=SEARCHED) is None:
            return f"{name} is not installed"
    if os.geteuid() != 0:
        return "namespaces and ssh servers need root"
    script = "mount -t tmpfs tmpfs /run && ip link add bridge type bridge && ip link add left type veth peer name right"
    tried = _run(["unshare", *NAMESPACES, "--fork", "--mount-proc", "sh", "-c", script])
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else None


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": SEARCHED}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=30, check=False)


class Machine:
    """A first process in namespaces of its own."""

    def __init__(self, script: str, log: Path) -> None:
        unshare = ["unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
        with log.open("w") as errors:
            self._outer = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *unshare],
                env={**os.environ, "PATH": SEARCHED},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._outer.stdout is not None
        told = self._outer.stdout.readline()
        assert told == "up\n", f"no machine: {told}{log.read_text()}"
        self.pid: int = psutil.Process(self._outer.pid).children()[0].pid
        self._started: list[subprocess.Popen[bytes]] = []

    def inside(self, command: Sequence[str], folder: Path) -> list[str]:
        """`command` as it has to be called from outside to run on this machine in `folder`."""
        return ["nsenter", "--target", str(self.pid), *NAMESPACES, f"--wd={folder}", *command]

    def processes(self) -> list[str]:
        """The command lines of everything that runs on this machine."""
        own = Path(f"/proc/{self.pid}/ns/pid").readlink()
        found = []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):  # ended in this moment
                if Path(f"/proc/{process.pid}/ns/pid").readlink() == own and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
        return found

    def kill(self) -> None:
        """SIGKILL to every process of the machine, by the kernel. Its network goes with it."""
        if self._outer.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._outer.wait()  # it waits for the first process, and the kernel lets that go last of all
        for process in self._started:
            process.wait(PATIENCE)
        if self._outer.stdout:
            self._outer.stdout.close()


class Node(Machine):
    """One machine of a cluster, `name` at `address`."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name, self.address = name, address
        places = {"name": name, "address": address, "folder": folder, "sshd": program("sshd")}
        (folder / name).mkdir()
        (folder / name / "sshd_config").write_text(SSHD_CONFIG.format(**places))
        _keygen(folder / name / "host_key")
        super().__init__(BOOT.format(**places), folder / name / "boot.log")

    def start(self, command: Sequence[str], folder: Path, env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
        """Run `command` on this machine in `folder`, both of its outputs into `log`."""
        inside = self.inside(command, folder)
        with log.open("ab") as file:
            started = subprocess.Popen(inside, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        self._started.append(started)
        return started

    def run(self, command: Sequence[str], folder: Path, env: dict[str, str], timeout: float = 120) -> tuple[int, str]:
        """The same, to its end: exit code and output.

        Raises:
            subprocess.TimeoutExpired: it took longer than `timeout` seconds.
        """
        ended = subprocess.run(
            self.inside(command, folder),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        return ended.returncode, ended.stdout

    def listens(self, port: int) -> bool:
        """Whether some process of this machine listens on `port` (IPv4)."""
        lines = Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]
        states = [(line.split()[1].partition(":")[2], line.split()[3]) for line in lines]
        return (f"{port:04X}", "0A") in states


class Cluster:
    """Nodes `node1`, `node2` ... at 10.77.0.1, 10.77.0.2 ..., joined by a switch."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        names = {f"node{n}": f"10.77.0.{n}" for n in range(1, number + 1)}
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in names.items()))
        (folder / "ssh_config").write_text(SSH_CONFIG.format(folder=folder))
        _keygen(folder / "key")
        self.machines: list[Machine] = []
        try:
            self.switch = Machine(SWITCH, folder / "switch.log")
            self.machines.append(self.switch)
            self.nodes = [self._add(name, address) for name, address in names.items()]
            self._meet()
        except BaseException:
            self.close()
            raise

    def _add(self, name: str, address: str) -> Node:
        node = Node(name, address, self.folder)
        self.machines.append(node)
        self._at_switch("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(node.pid))
        self._at_switch("link", "set", name, "master", "bridge", "up")
        return node

    def _meet(self) -> None:
        """Wait for the ssh servers, and let the nodes know each other's keys."""
        deadline = time.monotonic() + PATIENCE
        while not all(node.listens(22) for node in self.nodes):
            assert time.monotonic() < deadline, [(self.folder / n.name / "boot.log").read_text() for n in self.nodes]
            time.sleep(0.02)
        keys = [f"{n.name} {(self.folder / n.name / 'host_key.pub').read_text()}" for n in self.nodes]
        (self.folder / "known_hosts").write_text("".join(keys))

    def _at_switch(self, *arguments: str) -> None:
        done = _run(["nsenter", "--target", str(self.switch.pid), "--net", "ip", *arguments])
        assert done.returncode == 0, done.stderr

    def unplug(self, node: Node) -> None:
        """Pull `node`'s cable out of the switch: packets to and from it are lost, and nobody is told."""
        self._at_switch("link", "set", node.name, "down")

    def close(self) -> None:
        """Kill every machine."""
        for machine in reversed(self.machines):
            machine.kill()


@contextmanager
def cluster(folder: Path, number: int = 2) -> Iterator[Cluster]:
    """A cluster of `number` nodes that is gone afterwards. `folder`: empty, for its keys, settings and logs."""
    made = Cluster(folder, number)
    try:
        yield made
    finally:
        made.close()


def _keygen(path: Path) -> None:
    done = _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.parent.name, "-f", str(path)])
    assert done.returncode == 0, done.stderr
