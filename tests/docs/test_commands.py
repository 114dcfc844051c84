"""Every command of the documentation is executed by a test, or is marked with what it needs and names only what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, SHELL, Block, all_blocks, inline, made_by, name_of, pages
from tests.docs.commands import MADE, problems
from tests.docs.stories import STORIES

BLOCKS = all_blocks()
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
TYPED = re.compile(
    r"^\s*(?:\$ )?(?:python3? |deepspeed |torchrun |sbatch |docker |kubectl |make [a-z]|mlflow |pip install|git clone|source )"
)
INLINE = re.compile(r"^(?:python -m |python (?:launch|benchmarks)/|deepspeed |torchrun |sbatch |make [a-z]+$)")
DOOR = re.compile(r"[\w/]+\.(?:py|sh|sbatch)\b|data_tools|fbm_dist\.registry|mlflow")


def _id(block: Block) -> str:
    return f"{block.page}:{block.line}"


def test_there_are_commands() -> None:
    assert len([block for block in BLOCKS if block.is_shell]) > 20


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.is_shell], ids=_id)
def test_a_block_is_executed_or_says_what_it_needs(block: Block) -> None:
    told = block.marked or block.page in STORIES
    assert told, (
        "put a line above it, e.g. *Needs: a Slurm cluster.*, or make the page a story in tests/docs/stories.py"
    )
    if block.test is not None:
        doors = {door.rpartition("/")[2] for line in block.lines() for door in DOOR.findall(line)}
        seen = [door for door in doors if door in with_imports(ROOT / block.test)]
        assert seen, f"{block.test} is said to run it, and names none of {sorted(doors)}"


def with_imports(path: Path) -> str:
    """A test's text, with that of the tests' own modules that it imports."""
    text = path.read_text(encoding="utf-8")
    helpers = [
        ROOT / f"{name.replace('.', '/')}.py" for name in re.findall(r"^from (tests[\w.]+) import", text, re.MULTILINE)
    ]
    return text + "".join(helper.read_text(encoding="utf-8") for helper in helpers if helper.exists())


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.is_shell], ids=_id)
def test_a_block_names_what_exists(block: Block) -> None:
    made = {*MADE, *made_by(block.page)}
    found = {line: told for line in block.lines() if (told := problems(line, made=made))}
    assert not found, found


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_a_command_in_a_sentence_names_what_exists(page: Path) -> None:
    codes = [each for code in inline(page) if INLINE.match(code) for each in spread(code)]
    found = {code: told for code in codes if (told := problems(code, strict=False))}
    assert not found, found


def spread(code: str) -> list[str]:
    """`infra/{slurm,ray}/x` as the shell has it: one for each of the braces."""
    match = re.search(r"\{([\w,]+,[\w,]+)\}", code)
    return [code.replace(match[0], one) for one in match[1].split(",")] if match else [code]


def commands_of_files() -> list[str]:
    """What a config says is its own command, and what the demo says."""
    found = [line for path in CONFIGS for line in re.findall(r"^# Command: (.*)", path.read_text(), re.MULTILINE)]
    return sorted({*found, *re.findall(r"^say (.*)", (ROOT / "launch" / "demo.sh").read_text(), re.MULTILINE)})


@pytest.mark.parametrize("command", commands_of_files())
def test_a_command_of_a_config_or_of_the_demo_names_what_exists(command: str) -> None:
    assert not problems(command)


@pytest.mark.parametrize("block", [b for b in BLOCKS if not b.is_shell], ids=_id)
def test_commands_stand_in_blocks_of_a_shell(block: Block) -> None:
    """What is no block of a shell is output, a picture or a file: nothing in it is to be typed."""
    typed = [line for line in block.text.splitlines() if TYPED.match(line)]
    assert block.language not in ("", "text") or not typed, f"write one of {SHELL} behind the fence: {typed}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=_id)
def test_python_compiles_and_imports_what_exists(block: Block) -> None:
    compile(block.text, _id(block), "exec")
    if "title=" in block.info:
        return  # a file of a worked example, which has a test of its own
    lines = [line for line in block.text.splitlines() if re.match(r"(?:from|import) ", line)]
    exec("\n".join(lines), {})


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("python -m data_tools prepare configs/prepare/default.yaml input=x output=y maks.kind=none", "maks"),
        ("deepspeed launch/pretrain.py configs/pretrain/none.yaml data.path=x run.folder=y", "none.yaml"),
        ("python launch/pretrain.py configs/pretrain/fbm.yaml data.path=x", "run.folder"),
        (
            "until deepspeed launch/pretrain.py configs/pretrain/fbm.yaml dat.path=x run.folder=y; do sleep 1; done",
            "dat",
        ),
        ("sbatch --nodes 2 infra/slurm/pretrain.sbatch configs/pretrain/fbm.yaml data.path=x run.fodler=y", "fodler"),
        ("MLFLOW_TRACKING_URI=x python benchmarks/faults.py --kill 20", "--kill"),
        ("make demmo", "demmo"),
        ("pip install 'fbm-dist[s4]'", "s4"),
        ("somebodys-program --help", "somebodys-program"),
        ("cp infra/none.sh x && make test", "infra/none.sh"),
    ],
)
def test_a_wrong_command_is_seen(line: str, told: str) -> None:
    assert told in " ".join(problems(line))
