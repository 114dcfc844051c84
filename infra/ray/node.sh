#!/usr/bin/env bash
# One node of the Ray cluster that cluster.sh makes, until it is ended; a task of its step, with RAY_ADDRESS and RAY_HEAD_NODE set.
set -euo pipefail
folder=/tmp/ray-$SLURM_JOB_ID # short: sockets lie in it, whose names have 107 characters
words=(--block --disable-usage-stats --num-cpus "${SLURM_CPUS_ON_NODE:-1}" --object-store-memory "${RAY_OBJECT_STORE_BYTES:-1073741824}")
host=${RAY_ADDRESS%:*} port=${RAY_ADDRESS##*:}
unset RAY_ADDRESS # it would be taken for a cluster to connect to
if [[ ${SLURMD_NODENAME:-$(hostname -s)} == "$RAY_HEAD_NODE" ]]; then
  words+=(--head --node-ip-address "$host" --port "$port" --include-dashboard false --temp-dir "$folder")
else
  until (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; do sleep 0.5; done
  words+=(--address "$host:$port")
fi
log=$folder-$SLURM_NODEID.log
unset "${!SLURM_@}" # what Ray starts inherits: a trial would take itself for one of this step's ranks
code=0
ray start "${words[@]}" >"$log" 2>&1 || code=$?
tail -n 20 "$log" >&2 # it was not to end before it is killed
exit "$code"
