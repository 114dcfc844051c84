#!/usr/bin/env bash
# A Ray cluster of a Slurm job's nodes for as long as one command runs on the first of them: cluster.sh COMMAND...
# The command finds it by RAY_ADDRESS; Ray's token keeps other users of the machines out. SIGTERM goes to the command alone, which has
# its time to save; then the cluster ends with the exit code of the command.
# Settings: RAY_PATIENCE seconds to wait for all nodes (then it begins with those that came), RAY_OBJECT_STORE_BYTES of a node.
set -euo pipefail
: "${SLURM_JOB_ID:?is not set; this runs inside a Slurm job, see infra/slurm/prepare.sbatch}"
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")

head=${SLURMD_NODENAME:-$(hostname -s)}
address=$(getent ahostsv4 "$(hostname)" | awk '{print $1; exit}') || true
case $address in '' | 127.*) address=$(hostname -I | awk '{print $1}') ;; esac # Debian's /etc/hosts names the machine itself so
port=$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
token=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_ADDRESS=$address:$port RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$token RAY_HEAD_NODE=$head
export SLURM_EXPORT_ENV=ALL # a site may send nothing on to a step
export SLURM_CPU_BIND=none SLURM_CPU_BIND_TYPE=none # one task has all of a node's cores

# --overlap: the command runs beside it on the same CPUs. A node that fails does not end the others.
srun --overlap --ntasks-per-node=1 --kill-on-bad-exit=0 --no-kill --wait=0 bash "$here/node.sh" &
nodes=$! command='' stopping=''
# shellcheck disable=SC2329 # the trap below calls it
finish() {
  kill -TERM "$nodes" 2>/dev/null || true # srun ends what runs on the nodes, and after Slurm's KillWait kills it
  wait "$nodes" 2>/dev/null || true
  srun --overlap --ntasks-per-node=1 --kill-on-bad-exit=0 --no-kill bash -c "rm -rf /tmp/ray-$SLURM_JOB_ID /tmp/ray-$SLURM_JOB_ID-*.log" || true
} >/dev/null 2>&1
trap finish EXIT
trap 'stopping=1; [[ -z $command ]] || kill -TERM "$command" 2>/dev/null || true' TERM

run() { # COMMAND..., beside which signals are heard; its exit code
  "$@" &
  command=$!
  local code
  while code=0; wait "$command" || code=$?; kill -0 "$command" 2>/dev/null; do :; done
  command=''
  return "$code"
}
# shellcheck disable=SC2329 # `run meet` calls it
meet() { # until all nodes are there
  local deadline=$((SECONDS + ${RAY_PATIENCE:-120}))
  until (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null; do
    kill -0 "$nodes" 2>/dev/null || { echo "error: Ray ended at once on the first node; what it said is above" >&2; return 1; }
    ((SECONDS < deadline)) || { echo "error: Ray does not come up on the first node" >&2; return 1; }
    sleep 0.5
  done
  python - "$SLURM_JOB_NUM_NODES" $((deadline - SECONDS)) <<'PYTHON'
import sys, time
import ray

wanted, patience = map(int, sys.argv[1:])
deadline = time.monotonic() + max(patience, 10)
ray.init(log_to_driver=False, logging_level="ERROR")
while (found := sum(node["Alive"] for node in ray.nodes())) < wanted and time.monotonic() < deadline:
    time.sleep(0.5)
print(f"Ray: {found} of {wanted} nodes, {ray.cluster_resources().get('CPU', 0):g} CPUs, {ray.cluster_resources().get('GPU', 0):g} GPUs", flush=True)
PYTHON
}
code=0
run meet || code=$?
[[ -z $stopping ]] || exit 143
((code == 0)) || exit 76 # as for a rank that hangs: another session may have better machines
run "$@" || code=$?
exit "$code"
