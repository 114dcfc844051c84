#!/usr/bin/env bash
# Whether the container's work lives: below the first process (tini) something runs that is no zombie, and where the container
# has GPUs the driver still answers. A rank that hangs needs no probe: the run's own watchdog ends it (training.hang_timeout).
set -euo pipefail
first=${HEALTH_PID:-1}
living() {
  local child state children=()
  read -ra children 2>/dev/null <"/proc/$first/task/$first/children" || true
  for child in "${children[@]}"; do
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$child/status" 2>/dev/null) || continue
    [[ -z $state || $state == Z ]] || return 0
  done
  return 1
}
living || { echo "error: nothing runs below process $first" >&2; exit 1; }
shopt -s nullglob
gpus=(/dev/nvidia[0-9]*)
((${#gpus[@]} == 0)) || nvidia-smi --list-gpus >/dev/null || { echo "error: the NVIDIA driver does not answer" >&2; exit 1; }
