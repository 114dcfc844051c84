"""The papers' claims about their model families, asked of this project's code on synthetic films: the product's own commands, CPU-sized.

    python benchmarks/families.py [--folder runs/families] [--parts groups,scene,drnet,discovery,curves,masks] [--jobs 2]
    python benchmarks/families.py --parts actions --weizmann FOLDER
    python benchmarks/families.py --parts digits --mnist FOLDER

    groups     FBM on larger things, then a second stage that keeps scene and object out of its motion features: the disentanglement
               matrix on films that it has not seen (three training seeds). `fbm_matrix`: after the second stage; `fbm_matrix_plain`: first.
    scene      FBM, and as many more steps with each of its terms against the scene in the motion features, or with none; the autoencoder;
               random weights: the disentanglement matrix. `motion_background_*`: accuracy of a linear probe of the scene (chance: 0.24).
    drnet      DrNet with few and with many numbers of pose, with and without its critic's say: accuracy of a linear probe of the scene on
               films that were not seen in pretraining (four and two training seeds). Things go over half of the width within a clip.
    discovery  Quadruplet, Siamese, SFA (three training seeds) and random networks: bits of the scene that k-means clusters leave open.
    actions    the same losses and networks, of the ten actions of Weizmann (only where asked for; needs its folder).
    curves     margin and w (the neighbour's distance) of Siamese and Quadruplet, and n (the far frame's) of the latter, as the paper's
               Figure 4 and 4.1.2 (three training seeds); with curves.png.
    masks      the motion-mask ConvNet, the masks that it learnt from, and one mask for all frames, on held-out films. `mask_*_iou` are of
               the study of degraded masks: true ones, eroded or dilated. `masks` also has uNLC's.
    digits     DrNet on Moving MNIST, swaps and rollouts (benchmarks/moving_mnist.py); needs mnist_train.npz and mnist_test.npz.

`scene`, `masks` and `digits` are one training seed. Films are made here. A pretraining is one process of one thread, `--jobs` of
them beside each other, which changes no figure. The same command again goes on: what is finished is not made again. Ends with
one line of JSON; the first keys are null where their part was not asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bench import Bench, Found, Pretraining
from benchmarks.curves import CURVES, Curves, draw
from fbm_dist.config import load
from fbm_dist.data.loader import read_once
from fbm_dist.objectives.motion_mask.losses import overlap, reduced
from fbm_dist.schema import Data, Run
from fbm_dist.training.monitoring.metrics import read_lines
from fbm_dist.training.monitoring.validation import training_filter, validation_data

PARTS = ("groups", "scene", "drnet", "discovery", "curves", "masks", "actions", "digits")
FILMS = ("films=48", "seed=0", "shots=6", "motions=[right,left,up,down]")
# Films, then what `prepare` is told. `short` is the demo's; `long` holds n = 30; `many` shows a network of single frames enough things.
# `large`: larger things (12 % of the picture in place of 8: they need room to travel), and half of the films kept for the probes.
COLLECTIONS = {
    "short": ((*FILMS, "frames=[18,22]"), ("configs/prepare/demo.yaml",)),
    "many": (("films=240", *FILMS[1:], "frames=[18,22]"), ("configs/prepare/demo.yaml", "masks.kind=none")),
    "large": (
        ("films=240", *FILMS[1:], "frames=[18,22]", "coverage=[0.15,0.3]", "split={train: 1, val: 0, test: 1}"),
        ("configs/prepare/demo.yaml", "masks.kind=none"),
    ),
    # A thing goes most of its way while a shot lasts: its place along it says little of the clip, as DrNet's critic takes for granted.
    "crossing": (
        (
            *("films=400", "seed=1", "shots=6", "frames=[32,34]", "coverage=[0.15,0.3]", "motions=[right,left]"),
            *("cameras=[static]", "split={train: 3, val: 0, test: 1}"),
        ),
        ("configs/prepare/demo.yaml", "masks.kind=none"),
    ),
    "long": ((*FILMS, "frames=[36,40]"), ("configs/prepare/demo.yaml", "masks.kind=none")),
}
GIVEN = {"actions": "weizmann", "digits": "mnist"}  # parts that need a folder of recordings
BATCH = ("training.global_batch=8", "training.micro_batch=8", "training.steps=1000")
SHARES = ("objective.scene_share=2", "objective.object_share=10", "training.global_batch=16", "training.micro_batch=16")
FACTORS_ALONE = "factors=[motion,object,background]"  # the camera is nobody's
GROUPS, FACTORS = ("motion", "foreground", "background"), ("motion", "object", "background")
CRITIC = "players={critic: {optimizer: {lr: 2e-3, betas: [0.5, 0.999], weight_decay: 0}}}"
LOSSES = {
    "quadruplet": (),
    "siamese": ("objective.loss.kind=siamese", "data.clip.frames=2"),
    "sfa": ("objective.loss.kind=sfa", "data.clip.negative=false"),
}
SEEDS = (0, 1, 2)  # of training
PAPER = {loss: {"w": 1, "n": 20, "margin": 0.5 if loss == "quadruplet" else 1.0} for loss in LOSSES}
FASTER = "players={critic: {optimizer: {lr: 4e-3, betas: [0.5, 0.999], weight_decay: 0}}}"  # twice the model's rate
# Numbers of pose, and seeds of training: more of them where the game with the critic ends differently from seed to seed.
POSES = {16: (0, 1, 2, 3), 2: (0, 1)}
# True masks eroded or dilated, at random; pixels of the 99x99 crop.
DEGRADED = ("data.clip.use_truth_as_mask=true", "data.clip.degrade={kind: boundary, kernel: 15}", "training.steps=900")
LEVELS = tuple(np.linspace(0.1, 0.9, 17).round(2).tolist())


def probed(found: Found, groups: tuple[str, ...], heading: str) -> dict[str, list[list[float]]]:
    """Print accuracies of the scene's factors; the same as {encoder: rows of groups, columns of FACTORS}."""
    table = Table("features of", "", *FACTORS, title=f"accuracy in % of linear probes: {heading}")
    matrices: dict[str, list[list[float]]] = {}
    for name, tables in found.items():
        rows = [[round(tables[f"in_{group}"][factor][0], 4) for factor in FACTORS] for group in groups]
        for group, row in zip(groups, rows, strict=True):
            table.add_row(name, group, *(f"{100 * value:.1f}" for value in row))
        matrices[name] = rows
    Console().print(table)
    return matrices


def groups(bench: Bench) -> dict[str, Any]:
    """FBM's matrix on films that it has not seen: is each factor's own group the one that tells most of it? Means over training seeds."""
    own = ("data.filter={split: train}", "data.clip.use_truth_as_mask=true")
    longer = (*own, *BATCH[:-1], "training.steps=4000")
    plain = [Pretraining(f"fbm-large-{seed}", "large", "demo", (*longer, f"run.seed={seed}")) for seed in SEEDS]
    firsts = bench.pretrain(plain)
    shared = [
        Pretraining(
            f"fbm-groups-{seed}", "large", "fbm_scene_cpu", (f"init_from={first}", *own, *SHARES, f"run.seed={seed}")
        )
        for seed, first in zip(SEEDS, firsts, strict=True)
    ]
    folders = [*firsts, *bench.pretrain(shared)]
    found = bench.evaluate("groups", "disentanglement", "large", folders, "data.filter={split: test}", FACTORS_ALONE)
    matrices = probed(found, GROUPS, "FBM, larger things")
    means = {
        key: np.mean([matrices[run.name] for run in runs], axis=0).round(4).tolist()
        for key, runs in (("fbm_matrix", shared), ("fbm_matrix_plain", plain))
    }
    return {**means, "fbm_matrices": matrices}


def scene(bench: Bench) -> dict[str, Any]:
    """FBM's matrix, and what its terms, and as many steps without any, do to the scene in its motion features."""
    firsts = {
        "fbm": ("demo", *BATCH),
        "autoencoder": ("autoencoder_cpu", "objective.width=0.125", *BATCH),
        "fbm-share-from-start": ("fbm_scene_cpu", "optimizer.lr=1e-3", *BATCH),
    }
    first = bench.pretrain([Pretraining(n, "short", config, tuple(more)) for n, (config, *more) in firsts.items()])
    without = "objective.scene_share=0"
    terms = {
        "fbm-longer": (without,),
        "fbm-coherency": (without, "objective.coherency.weight=1"),
        "fbm-critic": (without, "objective.scene_critic.weight=1", "objective.scene_critic.pool=true", CRITIC),
        "fbm-share": (),
    }
    going_on = f"init_from={first[0]}"
    second = bench.pretrain([Pretraining(n, "short", "fbm_scene_cpu", (going_on, *more)) for n, more in terms.items()])
    found = bench.evaluate("scene", "disentanglement", "short", [*first, *second])
    matrices = probed(found, GROUPS, "FBM")
    scene_in_motion = {
        name: rows[GROUPS.index("motion")][FACTORS.index("background")] for name, rows in matrices.items()
    }
    return {
        "motion_background_plain": scene_in_motion["fbm-longer"],
        "motion_background_critic": scene_in_motion["fbm-critic"],
        "motion_background_share": scene_in_motion["fbm-share"],
        "motion_background_coherency": scene_in_motion["fbm-coherency"],
        "motion_background_autoencoder": scene_in_motion["autoencoder"],
        "motion_background_random": scene_in_motion["random"],
        "matrices": matrices,
    }


def drnet(bench: Bench) -> dict[str, Any]:
    """How well the scene is read from DrNet's pose, by its size, with and without the critic's say. Means over training seeds."""
    parts = "expected={background: content, motion: pose}", "leaks={background: pose}"
    # Chosen on films of another seed, as was their number.
    batch = ("training.global_batch=64", "training.micro_batch=64", "training.steps=800")
    own = ("data.filter={split: train}", "data.clip.within=32", *batch, FASTER)
    kinds = {f"drnet-{pose}-{say}": (pose, beta) for pose in POSES for say, beta in (("with", 0.1), ("without", 0.0))}
    settings = {
        f"{kind}-{seed}": (f"objective.pose_dim={pose}", f"objective.beta={beta}", f"run.seed={seed}")
        for kind, (pose, beta) in kinds.items()
        for seed in POSES[pose]
    }
    runs = [Pretraining(name, "crossing", "drnet_cpu", (*own, *more)) for name, more in settings.items()]
    folders = {folder.name: folder for folder in bench.pretrain(runs)}
    matrices: dict[str, list[list[float]]] = {}
    for pose in POSES:
        chosen = [folder for name, folder in folders.items() if name.startswith(f"drnet-{pose}-")]
        asked = (*parts, "data.filter={split: test}", FACTORS_ALONE)
        found = bench.evaluate(f"drnet-{pose}", "disentanglement", "crossing", chosen, *asked)
        for name, rows in probed(found, ("content", "pose"), f"DrNet, {pose} numbers of pose").items():
            matrices[name if name.startswith("drnet") else f"drnet-{pose}-{name}"] = rows
    scene_in_pose = {name: rows[1][FACTORS.index("background")] for name, rows in matrices.items()}
    means = {
        kind: np.mean([scene_in_pose[f"{kind}-{seed}"] for seed in POSES[pose]]).round(4).item()
        for kind, (pose, _) in kinds.items()
    }
    return {
        "drnet_pose_leak_with": means["drnet-16-with"],
        "drnet_pose_leak_without": means["drnet-16-without"],
        "drnet_pose_leaks": means,
        "drnet_matrices": matrices,
    }


def _coherency(name: str, loss: str, seed: int, films: str = "long", **given: float) -> Pretraining:
    numbers = PAPER[loss] | given
    offsets = (0, numbers["w"]) if loss == "siamese" else (0, numbers["w"], numbers["n"])
    own = (
        *LOSSES[loss],
        f"objective.loss.margin={numbers['margin']}",
        f"data.clip.offsets=[{','.join(map(str, offsets))}]",
    )
    return Pretraining(name, films, "coherency_cpu", (*own, f"run.seed={seed}", "training.micro_batch=16"))


def _entropy(
    bench: Bench, name: str, runs: list[Path], films: str = "long", label: str = "background"
) -> dict[str, dict[str, tuple[float, float]]]:
    """{encoder: {feature: bits that clusters leave open of the label, and their spread over clusterings}}."""
    found = bench.evaluate(name, "discovery", films, runs, f"label={label}", "split=all", "algorithms=[k-means]")
    return {run: tables["kmeans"] for run, tables in found.items() if "kmeans" in tables}


def discovery(bench: Bench) -> dict[str, Any]:
    """What each loss leaves open of the scene, mean and spread over training seeds."""
    means, by_seed = _losses(bench, "", "long", "background")
    return {"discovery": means, "discovery_seeds": by_seed}


def actions(bench: Bench) -> dict[str, Any]:
    """What each loss leaves open of Weizmann's actions, likewise."""
    means, by_seed = _losses(bench, "weizmann-", "weizmann", "action")
    return {"actions": means, "actions_seeds": by_seed}


def _losses(bench: Bench, before: str, films: str, label: str) -> tuple[dict[str, float], dict[str, float]]:
    """Bits of `label` that k-means clusters of fc6 leave open: by loss, and by run."""
    names = {(loss, seed): f"{before}{loss}-{seed}" for seed in SEEDS for loss in LOSSES}
    runs = bench.pretrain([_coherency(name, *which, films=films) for which, name in names.items()])
    found = _entropy(bench, f"{before}discovery", runs, films, label)
    features = ("fc6", "fc6_pre", "fc7", "fc7_pre")
    title = f"conditional entropy of {label} in bits; ±: over training seeds (random: networks and clusterings)"
    table = Table("", *features, title=title)
    means: dict[str, float] = {}
    for loss in ("random", *LOSSES):
        own = [loss] if loss == "random" else [names[loss, seed] for seed in SEEDS]
        bits = {f: [found[name][f][0] for name in own] for f in features}
        means[loss] = round(float(np.mean(bits["fc6"])), 4)
        spread = {f: found[loss][f][1] if loss == "random" else float(np.std(b, ddof=1)) for f, b in bits.items()}
        table.add_row(loss, *(f"{np.mean(bits[f]):.2f} ± {spread[f]:.2f}" for f in features))
    Console().print(table)
    return means, {f"{loss}-{seed}": round(found[name]["fc6"][0], 4) for (loss, seed), name in names.items()}


def curves(bench: Bench) -> dict[str, Any]:
    """Bits of the scene that each loss leaves open, over its numbers, one at a time; means and spreads over training seeds."""
    runs: dict[str, Pretraining] = {}
    points: dict[tuple[str, str, float], list[str]] = {}  # loss, number, its value -> the runs of all seeds
    for loss, numbers in CURVES.items():
        for number, values in numbers.items():
            for value in values:
                kind = loss if value == PAPER[loss][number] else f"{loss}-{number}-{value}"
                names = [f"{kind}-{seed}" for seed in SEEDS]
                points[loss, number, value] = names
                for name, seed in zip(names, SEEDS, strict=True):
                    runs[name] = _coherency(name, loss, seed, **{number: value})
    found = _entropy(bench, "curves", bench.pretrain(list(runs.values())))

    def over_seeds(reduce: Callable[[list[float]], float]) -> Curves:
        return {
            loss: {
                number: {
                    f"{value:g}": round(
                        float(reduce([found[name]["fc6"][0] for name in points[loss, number, value]])), 4
                    )
                    for value in values
                }
                for number, values in numbers.items()
            }
            for loss, numbers in CURVES.items()
        }

    means, spreads = over_seeds(np.mean), over_seeds(partial(np.std, ddof=1))
    for loss, numbers in CURVES.items():
        for number in numbers:
            table = Table(*means[loss][number], title=f"{loss}: bits of the scene left open by fc6, over {number}")
            spread = spreads[loss][number]
            table.add_row(*(f"{mean:.2f} ± {spread[value]:.2f}" for value, mean in means[loss][number].items()))
            Console().print(table)
    draw(means, spreads, found["random"]["fc6"][0], bench.folder / "curves.png")
    return {"curves": means, "curves_spread": spreads}


def masks(bench: Bench) -> dict[str, Any]:
    """IoU with true masks, of the network and of what it learnt from, on the boxes of films that it has not seen."""
    runs = bench.pretrain(
        [
            Pretraining("masks-unlc", "short", "motion_mask_cpu", ()),
            Pretraining("masks-boundary", "many", "motion_mask_cpu", DEGRADED),
        ]
    )
    columns = ("learnt from", "the network", "the masks learnt from", "one mask for all frames")
    table = Table(*columns, title="IoU with true masks in %, films not seen in training")
    found: dict[str, dict[str, float]] = {}
    for folder in runs:
        last = [row for row in read_lines(folder / "metrics.jsonl") if "validation/iou_truth" in row][-1]
        found[folder.name] = {
            "net": round(last["validation/iou_truth"], 4),
            "input": round(last["validation/iou_truth_of_masks"], 4),
            "prior": round(prior(folder), 4),
        }
        table.add_row(folder.name, *(f"{100 * value:.1f}" for value in found[folder.name].values()))
    Console().print(table)
    degraded = found["masks-boundary"]
    return {"mask_net_iou": degraded["net"], "mask_input_iou": degraded["input"], "masks": found}


def prior(folder: Path) -> float:
    """IoU of one mask for all frames: the mean true mask of the training boxes, cut where it does best on them."""
    run = load(Run, folder / "config.yaml")
    assert run.validation is not None

    def truths(data: Data) -> torch.Tensor:
        clips = read_once(data, batch=32)
        boxes = [
            reduced(clip.truth[:, :, 0], run.objective.mask_side) > 0.5 for clip in clips if clip.truth is not None
        ]
        return torch.cat(boxes)

    known, tested = truths(training_filter(run.data, run.validation)), truths(validation_data(run.data, run.validation))
    mean = known.float().mean(dim=0, keepdim=True)
    cuts = [float(overlap((mean > level).expand_as(known), known)) for level in LEVELS]
    best = LEVELS[int(np.argmax(cuts))]
    return float(overlap((mean > best).expand_as(tested), tested))


def digits(bench: Bench, mnist: Path) -> dict[str, Any]:
    """Two coloured digits: swaps, probes, rollouts over an LSTM."""
    train, test = mnist / "mnist_train.npz", mnist / "mnist_test.npz"
    quick = ("training.micro_batch=32", "training.threads=1", "training.picture_every=0", "training.log_every=100")
    # With the paper's alpha 1 and beta 0.1, content and pose hardly differ from clip to clip after as many clips as a CPU can see.
    # A pose of 10 numbers is past the blobs within 1,000 steps; one of 5 is not after 1,400.
    trunk = {"width": 0.25, "content_dim": 128, "pose_dim": 10, "alpha": 0.01, "beta": 0.0}
    networks = {
        "digits-drnet": (
            "drnet_cpu",
            "training.steps=16000",
            "optimizer.lr=4e-3",
            *(f"objective.{key}={value}" for key, value in trunk.items()),
        ),
        "digits-lstm": (
            "drnet_prediction_cpu",
            *(f"objective.trunk.{key}={value}" for key, value in trunk.items()),
            f"init_from={bench.folder / 'digits-drnet'}",
        ),
    }
    for name, (config, *more) in networks.items():
        folder = bench.folder / name
        command = ("benchmarks/drawn_digits.py", f"configs/pretrain/{config}.yaml", "--train", str(train))
        bench.script(f"{name}-pretraining", *command, f"run.folder={folder}", *quick, *more)
    runs = ("--drnet", str(bench.folder / "digits-drnet"), "--prediction", str(bench.folder / "digits-lstm"))
    pictures = ("--pictures", str(bench.folder / "digits-pictures"))
    found = bench.script(
        "digits", "benchmarks/moving_mnist.py", *runs, "--train", str(train), "--test", str(test), *pictures
    )
    Console().print_json(data=found)
    return {"digits": found}


def main() -> None:
    """Run the parts, print their tables, and the figures as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/families"))
    parser.add_argument("--parts", default=",".join(p for p in PARTS if p not in GIVEN))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--mnist", type=Path, help="folder with mnist_train.npz and mnist_test.npz")
    parser.add_argument("--weizmann", type=Path, help="folder with Weizmann's films and labels.csv")
    given = parser.parse_args()
    parts = given.parts.split(",")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; there are {', '.join(PARTS)}")
    for part in GIVEN.keys() & set(parts):
        if getattr(given, GIVEN[part]) is None:
            parser.error(f"the part {part} needs --{GIVEN[part]} FOLDER")
    collections = dict(COLLECTIONS)
    if given.weizmann:
        collections["weizmann"] = (given.weizmann.resolve(), ("configs/prepare/weizmann.yaml", "masks.kind=none"))
    bench = Bench(given.folder, given.jobs, collections)
    keys = ("fbm_matrix", "motion_background_plain", "motion_background_critic", "motion_background_random")
    keys += ("drnet_pose_leak_with", "drnet_pose_leak_without", "discovery", "mask_net_iou", "mask_input_iou")
    figures: dict[str, Any] = dict.fromkeys(keys)
    kinds: dict[str, Callable[[Bench], dict[str, Any]]] = {
        "groups": groups,
        "scene": scene,
        "drnet": drnet,
        "discovery": discovery,
        "actions": actions,
        "curves": curves,
        "masks": masks,
    }
    for part in parts:
        figures |= digits(bench, given.mnist.resolve()) if part == "digits" else kinds[part](bench)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
