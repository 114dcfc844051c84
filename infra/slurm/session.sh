#!/usr/bin/env bash
# One session of a Slurm job that goes on until it is finished: session.sh COMMAND... requeues the job where the same command
# will go on, and ends with the command's exit code where it will not. The batch shell becomes it: exec bash infra/slurm/session.sh ...
# SIGUSR1 (`#SBATCH --signal=B:USR1@120`: the time is nearly up) and SIGTERM reach the command as SIGTERM.
set -euo pipefail

stopped=75      # a signal ended the session early, all is saved
hung=76         # a rank made no progress
killed=128      # and above: a signal ended it: out of memory, a bad machine
max_failures=3  # hung or killed so often in a row: somebody has to look

"$@" &
child=$! told='' code=0
trap 'told=1; kill -TERM "$child" 2>/dev/null || true' USR1 TERM
while code=0; wait "$child" || code=$?; kill -0 "$child" 2>/dev/null; do :; done # a signal interrupts the wait, not the command
[[ -z $told ]] || ((code == 0)) || code=$stopped # it ended as it was told to, whatever it calls that: Ray's driver says 15
echo "session ${SLURM_RESTART_COUNT:-0} of job $SLURM_JOB_ID ended with code $code${told:+, as it was told to}"
((code == stopped || code == hung || code >= killed)) || exit "$code"

# The job's comment counts the failures: it lives through a requeue, and squeue shows it.
record=$(scontrol show job "$SLURM_JOB_ID")
[[ $record != *JobState=CANCELLED* ]] || exit "$code"
failures=$(sed -n 's/^ *Comment=failures:\([0-9]*\).*/\1/p' <<<"$record")
failures=$((code == stopped ? 0 : ${failures:-0} + 1))
((failures <= max_failures)) || exit "$code"
scontrol update JobId="$SLURM_JOB_ID" Comment="failures:$failures"
echo "the job is requeued"
exec scontrol requeue "$SLURM_JOB_ID"
