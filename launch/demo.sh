#!/usr/bin/env bash
# The whole story on synthetic video, one command a step: films -> shards -> encoder -> numbers -> registry -> back by name.
# Every step goes on where it stopped, so running this again after an interruption loses nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-demo}  # relative to the repository
mkdir -p "$folder"
: "${MLFLOW_TRACKING_URI:=sqlite:///$(cd "$folder" && pwd)/mlflow.db}"; export MLFLOW_TRACKING_URI
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TQDM_DISABLE=1

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
say() { printf '   $ %s\n' "$*"; "$@"; }

# Two processes on CPUs; on a machine with GPUs, one or two of them (the demo's batch is 8 clips).
gpus=$( (nvidia-smi -L 2>/dev/null || true) | grep -c '^GPU' || true)
if ((gpus > 0)); then processes=(--num_gpus $((gpus > 1 ? 2 : 1))); else processes=(--num_accelerators 2); export DS_ACCELERATOR=cpu; fi

step "1/8 films: real video files with several shots each, moving things over photographs, labels and true masks for the evaluation"
say python -m data_tools synthesize output="$folder/films" films=48 seed=0 shots=6 frames='[18, 22]' motions='[right, left, up, down]'

step "2/8 prepare: cut into shots, find what moves without supervision (uNLC), write WebDataset shards"
say python -m data_tools prepare configs/prepare/demo.yaml input="$folder/films" output="$folder/shards"
say python -m data_tools verify "$folder/shards" decode=40
say python -m data_tools inspect "$folder/shards"

step "3/8 pretrain: the FBM encoder with DeepSpeed ZeRO; the masks are uNLC's, no label is read"
say deepspeed "${processes[@]}" launch/pretrain.py configs/pretrain/demo.yaml data.path="$folder/shards" run.folder="$folder/run"
# The deepspeed launcher exits with 0 when it is killed itself: the run's own mark counts.
[[ -f $folder/run/finished.json ]] || { echo "error: pretraining did not finish; run the same command again to go on" >&2; exit 1; }

step "4/8 evaluate: what do the features know, against the same network with random weights?"
say python launch/evaluate.py configs/evaluate/demo.yaml encoder=models:/fbm-encoder/latest data.path="$folder/shards" output="$folder/evaluation"

step "5/8 a page of the collection: clusters and nearest neighbours, found without labels, with clips that play"
say python launch/evaluate.py configs/evaluate/embed.yaml encoder=models:/fbm-encoder/latest data.path="$folder/shards" output="$folder/embedding"

step "6/8 a sweep: four margins of the temporal coherency loss, two trials at a time; the best encoder becomes coherency@challenger"
say python launch/sweep.py configs/sweep/demo.yaml data.path="$folder/shards" output="$folder/sweep"

step "7/8 pull the encoder from the registry by name, and run it"
python - <<'PYTHON'
import torch
from fbm_dist.registry import load_encoder
encoder = load_encoder("models:/fbm-encoder/latest")
features = encoder(torch.rand(2, 3, 16, 64, 64) * 2 - 1)
print('   load_encoder("models:/fbm-encoder/latest") ->', {name: tuple(value.shape) for name, value in features.items()})
PYTHON

step "8/8 what came out"
python - "$folder" <<'PYTHON'
import json, os, sys
from pathlib import Path
folder = Path(sys.argv[1])
results = json.loads((folder / "evaluation" / "results.json").read_text())
table = next(table for table in results["tables"] if table["name"] == "clip")
print("accuracy in % on films that the classifier has not seen; label: direction of motion\n")
print(f"{'':34}" + "".join(f"{column:>19}" for column in table["columns"]))
for row in table["rows"]:
    if row["kind"] != "paper":
        print(f"{row['name']:34}" + "".join(f"{100 * row['cells'][c]['value']['mean']:19.1f}" for c in table["columns"]))
picture = sorted((folder / "run" / "pictures").glob("*.png"))[-1]
print(f"""
table            {folder}/evaluation/table.md, figure.png
reconstructions  {picture}
data set         {folder}/shards/inspect.html
its clusters     {folder}/embedding/page.html
the sweep        {folder}/sweep/table.md, figure.png
model            {results['subjects'][-1]['model']}   with MLFLOW_TRACKING_URI={os.environ['MLFLOW_TRACKING_URI']}

next, on your own videos:
  source .venv/bin/activate
  python -m data_tools prepare configs/prepare/default.yaml input=MY_VIDEOS output=shards""")
PYTHON
