"""What a command line of the documentation must hold to be right: programs, files, flags, make targets and config keys that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel

from data_tools import schema
from data_tools.__main__ import COMMANDS
from data_tools.config import ConfigError, Schema, load
from data_tools.synthetic.config import settings_of
from fbm_dist.evaluation.protocols import schema_of
from fbm_dist.schema import Run
from tests.docs.blocks import ROOT

KEY = re.compile(r"[a-z_][a-z_0-9.]*=")
# Where a command is shortened by dots, or stands in a sentence, keys that it must have may be missing.
MISSING = "is missing; give it"
OUTSIDE = {  # programs of others: what they are given is theirs to check
    *(
        "cd",
        "chmod",
        "cp",
        "cat",
        "curl",
        "docker",
        "duckdb",
        "echo",
        "find",
        "git",
        "grep",
        "head",
        "kubectl",
        "kustomize",
        "mkdir",
    ),
    *(
        "mlflow",
        "nvidia-smi",
        "printf",
        "openssl",
        "pkill",
        "ray",
        "rm",
        "scancel",
        "sha256sum",
        "sleep",
        "source",
        "squeue",
        "ssh",
    ),
    *(
        "sudo",
        "tail",
        "test",
        "tee",
        "touch",
        "unzip",
        "[",
        "[[",
        "sed",
        "wc",
        "apt-get",
        "pre-commit",
        "ls",
        "pip",
        "true",
    ),
    *("python3", "compose"),
}
KEYWORDS = {"until", "while", "if", "then", "else", "do", "!", "{", "export", "exec", "time", "nohup"}
ENDS = {"done", "fi", "}", "for", "]", "]]"}
LAUNCHERS = ("deepspeed", "torchrun", "srun")
PATHS = re.compile(r"^(configs|infra|launch|tests|benchmarks|docs|data_tools|fbm_dist)/[\w./-]*[\w/]$")
MADE = ("infra/mlflow/.env",)  # files that a page's own commands make
TRIALS = 16  # of a sweep, whose values are looked at
YOURS = re.compile(r"\b[A-Z]{2,}\b")  # words that stand for something of the reader's


def _doors() -> dict[str, Schema[BaseModel]]:
    """The schema of each program that takes a config and keys."""
    found: dict[str, Schema[BaseModel]] = {"launch/pretrain.py": Run, "launch/evaluate.py": schema_of}
    if (ROOT / "launch" / "sweep.py").exists():
        from fbm_dist.sweeps.config import Sweep

        found["launch/sweep.py"] = Sweep
    for command in COMMANDS:
        found[command] = settings_of if command == "synthesize" else getattr(schema, command.capitalize())
    return found


DOORS = _doors()
# What stands in another's script: sbatch's files, and the words of the images' entry script.
ALIASES = {
    "infra/slurm/prepare.sbatch": "prepare",
    "infra/slurm/pretrain.sbatch": "launch/pretrain.py",
    "infra/slurm/sweep.sbatch": "launch/sweep.py",
    "pretrain": "launch/pretrain.py",
    "evaluate": "launch/evaluate.py",
    "sweep": "launch/sweep.py",
}


def split(line: str) -> list[list[str]]:
    """The simple commands of a line of shell: words of each, without redirections, assignments before it, and comments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split, lexer.commenters = True, ""
    commands: list[list[str]] = [[]]
    skip = False
    for word in lexer:
        if word.startswith("#"):
            break
        if skip:
            skip = False
        elif word in ("<", ">", ">>", "2>", "<<<"):
            skip = True
        elif set(word) <= set("();|&"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [found for command in commands if (found := _plain(command))]


def _plain(words: Sequence[str]) -> list[str]:
    """Without keywords and assignments in front, and `$` of a substitution."""
    rest = list(words)
    while rest and (rest[0] in KEYWORDS or rest[0] == "$" or re.match(r"^[A-Z_]+=", rest[0]) or rest[0].endswith("=$")):
        rest.pop(0)
    if rest and (rest[0] in ENDS or rest[0].endswith("()")):
        return []
    return rest


def problems(line: str, strict: bool = True, made: Collection[str] = MADE) -> list[str]:
    """What is wrong with a line of shell.

    Args:
        strict: nothing that a command needs may be left out.
        made: files that are not here, but made by the page.
    """
    found: list[str] = []
    for words in split(line):
        there = [w for w in words if PATHS.match(w) and w not in made and not YOURS.search(w)]
        missing = [f"there is no {w}" for w in there if not (ROOT / w).exists()]
        skip = missing or any(w in made for w in words)
        found += missing or ([] if skip else _of_program(words, strict and "..." not in words))
    return found


def _of_program(words: list[str], strict: bool) -> list[str]:
    program, rest = Path(words[0]).name if words[0].startswith(".venv/bin/") else words[0], words[1:]
    rest = [word for word in rest if word not in ("...", "[a.b=c", "[a.b=c]")]
    if program == "python":
        return _python(rest, strict)
    if program in LAUNCHERS:
        door = next((word for word in rest if word.endswith(".py")), None)
        if door is None:
            return [] if not strict else [f"{program} starts no file"]
        return _of_door(door, rest[rest.index(door) + 1 :], strict)
    if program == "sbatch":
        script = next((word for word in rest if word.endswith(".sbatch")), None)
        return (
            ["sbatch without a script"] if script is None else _of_door(script, rest[rest.index(script) + 1 :], strict)
        )
    if program == "make":
        return _make([word for word in rest if "=" not in word])
    if program == "bash":
        return [] if rest and (ROOT / rest[0]).exists() else [f"there is no {' '.join(rest[:1])}"]
    if program == "pytest":
        return [f"there is no {w}" for w in rest if "/" in w and not (ROOT / w.split("::")[0]).exists()]
    if program == "docker" and "run" in rest:
        inside = next((i for i, word in enumerate(rest) if word.startswith("fbm-dist:")), None)
        return [] if inside is None else _container(rest[inside + 1 :], strict)
    if program == "pip" and "install" in rest:
        return _extras(rest)
    return [] if program in OUTSIDE else [f"{program}: not a program that the documentation may name unseen"]


def _python(words: list[str], strict: bool) -> list[str]:
    if words[:1] in (["-c"], ["-"]):
        return []
    if words[:1] == ["-m"]:
        module, rest = words[1], words[2:]
        if module == "data_tools":
            return _of_door(rest[0], rest[1:], strict) if rest else ["data_tools without a command"]
        if module == "fbm_dist.registry":
            return _registry(rest, strict)
        if module in ("json.tool", "pip", "venv", "pytest"):
            return _extras(rest) if module == "pip" else []
        path = ROOT / (module.replace(".", "/") + ".py")
        path = path if path.exists() else ROOT / module.replace(".", "/") / "__main__.py"
    else:
        path, rest = ROOT / words[0], words[1:]
        if words[0].startswith("launch/"):
            return _of_door(words[0], rest, strict)
    if not path.exists():
        return [f"there is no {path.relative_to(ROOT)}"]
    return _flags(path, rest)


def _flags(path: Path, words: Iterable[str]) -> list[str]:
    """Whether a script, or the module that it takes its flags from, knows them."""
    text = path.read_text(encoding="utf-8") + (ROOT / "benchmarks" / "bench.py").read_text(encoding="utf-8")
    flags = [word.split("=")[0] for word in words if word.startswith("--")]
    return [f"{path.name} has no {flag}" for flag in flags if f'"{flag}"' not in text]


def _of_door(door: str, words: list[str], strict: bool) -> list[str]:
    door = ALIASES.get(door, door)
    if YOURS.fullmatch(door):
        return []
    if door not in DOORS:
        return [f"{door} takes no config"] if door.endswith((".py", ".sbatch")) else [f"there is no command {door}"]
    section = DOORS[door]
    given = [_bound(word) for word in words if KEY.match(word)]
    plain = [word for word in words if not KEY.match(word) and not word.startswith("-")]
    config = plain[0] if plain and plain[0].endswith((".yaml", ".yml")) else None
    if config and YOURS.search(config):
        return []
    if len(plain) > 1:
        return [f"{plain[1]}: what is it to {door}?"]
    if plain and config is None and plain[0] not in ("CONFIG",):
        if not (isinstance(section, type) and "path" in section.model_fields):
            return [f"{plain[0]}: {door} takes a YAML file"]
        given = [f"path={plain[0]}", *given]
    try:
        check_suits(load(section, ROOT / config if config else None, given))
    except ConfigError as error:
        told = [part for part in str(error).split("; ") if strict or MISSING not in f"{part}; give it"]
        if strict and plain[:1] != ["CONFIG"]:
            return [str(error)]
        return [part for part in told if "unknown key" in part]
    except ValueError as error:
        return [str(error)]
    return []


def check_suits(config: BaseModel) -> None:
    """What a door looks at before it opens any data: the clips of a run suit its family; so do those of a sweep's trials.

    Raises:
        ConfigError: values of a sweep make no run; ValueError: they make one that cannot be trained.
    """
    from fbm_dist.sweeps.config import Sweep
    from fbm_dist.sweeps.runs import Runs
    from fbm_dist.sweeps.search.samplers import sampler_of

    if isinstance(config, Run):
        config.objective.check_clip(config.data.clip)
    elif isinstance(config, Sweep):
        there = config.model_copy(update={"pretrain": ROOT / config.pretrain})
        sampler, runs = sampler_of(there, []), Runs(there, ROOT / "runs")
        for number in range(min(TRIALS, sampler.total)):
            runs.of(number, sampler.look(number))


def _bound(word: str) -> str:
    """A word whose shell variables have values."""
    return re.sub(r"\$\{?[A-Za-z_]+\}?", "x", word)


def _registry(words: list[str], strict: bool) -> list[str]:
    from fbm_dist.registry.__main__ import parsed  # the registry's command

    try:
        parsed(words[0], [word for word in words[1:] if word != "--json"])
    except (ConfigError, KeyError) as error:
        return [str(error)] if strict else []
    return []


def _make(targets: Iterable[str]) -> list[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return [f"make has no target {t}" for t in targets if not re.search(rf"^{re.escape(t)}:", text, re.MULTILINE)]


def _container(words: list[str], strict: bool) -> list[str]:
    if not words:
        return []
    return _python(["-m", *words], strict) if words[0] == "data_tools" else _of_door(words[0], words[1:], strict)


def _extras(words: Iterable[str]) -> list[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = [name for word in words for name in re.findall(r"^(?:fbm-dist|\.)\[([\w,]+)\]$", word)]
    return [
        f"there is no extra {extra}"
        for name in named
        for extra in name.split(",")
        if not re.search(rf"^{re.escape(extra)} = \[", text, re.MULTILINE)
    ]
