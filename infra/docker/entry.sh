#!/usr/bin/env bash
# What a container of this project does: one word for the door, and the door's own arguments.
#   pretrain CONFIG [a.b=c ...]    one process a GPU (PROCESSES of them), over all pods of a JobSet or Indexed Job, or this machine alone
#   evaluate | sweep CONFIG ...    the doors of the same names
#   data_tools COMMAND ...         films to shards
#   anything else                  is run as it is
# SIGTERM reaches the ranks, which save and end with 75: the same command goes on from there.
set -euo pipefail
cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../.."

pretrain() {
  # Kubernetes gives a pod its number (Indexed Job) and, by the manifest, the first pod's name and how many there are.
  local nodes=${NODES:-1} node=${JOB_COMPLETION_INDEX:-0} processes=${PROCESSES:-}
  [[ -n $processes ]] || processes=$( (nvidia-smi --list-gpus 2>/dev/null || true) | grep -c '^GPU' || true)
  ((processes > 0)) || processes=1
  [[ $nodes =~ ^[1-9][0-9]*$ && $processes =~ ^[1-9][0-9]*$ ]] || { echo "error: NODES=$nodes and PROCESSES=$processes must be numbers" >&2; exit 2; }
  { [[ $node =~ ^[0-9]+$ ]] && ((node < nodes)); } || { echo "error: JOB_COMPLETION_INDEX=$node is not among NODES=$nodes; parallelism and NODES must agree" >&2; exit 2; }
  if ((nodes > 1)) && [[ -z ${MASTER_ADDR:-} ]]; then
    echo "error: NODES=$nodes needs MASTER_ADDR, the name of the first pod" >&2
    exit 2
  fi
  local master=${MASTER_ADDR:-127.0.0.1} port=${MASTER_PORT:-29500} rank pids=()
  ((nodes > 1)) || [[ -n ${MASTER_PORT:-} ]] || port=$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
  # No launcher in between: neither `deepspeed` nor torchrun passes SIGTERM on to all ranks at once, and each has 30 s and not more.
  trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM INT USR1
  for ((rank = 0; rank < processes; rank++)); do
    RANK=$((node * processes + rank)) LOCAL_RANK=$rank WORLD_SIZE=$((nodes * processes)) LOCAL_WORLD_SIZE=$processes LOCAL_SIZE=$processes \
      MASTER_ADDR=$master MASTER_PORT=$port python launch/pretrain.py "$@" &
    pids+=($!)
  done
  await
}

await() { # the ranks; the first bad exit code, and a rank that died without a word takes the others along after two minutes
  local worst=0 code pid alive=("${pids[@]}") since=0 left
  while ((${#alive[@]})); do
    wait -n "${alive[@]}" || true # or a signal
    left=()
    for pid in "${alive[@]}"; do
      if kill -0 "$pid" 2>/dev/null; then
        left+=("$pid")
      else
        code=0
        wait "$pid" || code=$?
        ((worst)) || worst=$code
      fi
    done
    alive=("${left[@]}")
    if ((worst && !since && ${#alive[@]})); then
      since=$SECONDS
      (sleep "${PATIENCE:-120}" && kill -TERM "${alive[@]}" && sleep 30 && kill -KILL "${alive[@]}") 2>/dev/null &
    fi
  done
  exit "$worst"
}

case ${1:-help} in
  pretrain) shift && pretrain "$@" ;;
  evaluate | sweep) door=$1 && shift && exec python "launch/$door.py" "$@" ;;
  data_tools) shift && exec python -m data_tools "$@" ;;
  help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" ;;
  *) exec "$@" ;;
esac
