"""What the README, docs/ and the configs tell people to type exists: files, modules, subcommands, make targets, config keys."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from data_tools.__main__ import COMMANDS
from data_tools.config import load
from data_tools.schema import Inspect, Plan, Prepare, Repair, Scrub, Stats, Verify
from data_tools.synthetic.config import settings_of
from fbm_dist.evaluation.protocols import schema_of
from fbm_dist.registry.__main__ import parsed
from fbm_dist.schema import Run
from fbm_dist.sweeps.config import Sweep

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SCHEMAS = {
    "launch/pretrain.py": Run,
    "launch/evaluate.py": schema_of,
    "launch/sweep.py": Sweep,
    "synthesize": settings_of,
    "plan": Plan,
    "prepare": Prepare,
    "verify": Verify,
    "repair": Repair,
    "scrub": Scrub,
    "stats": Stats,
    "inspect": Inspect,
}


def commands() -> list[str]:
    """Every line of a shell block of the README and docs/, of the demo script, and of a config's "command:" comment."""
    pages = [page.read_text() for page in PAGES]
    blocks = [block for page in pages for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)]
    lines = [
        line for block in blocks for line in block.replace("\\\n", " ").splitlines() if not line.startswith("until ")
    ]
    for config in (ROOT / "configs").rglob("*.yaml"):
        lines += re.findall(r"^# Command: (.*)", config.read_text(), re.MULTILINE)
    lines += re.findall(r"^say (.*)", (ROOT / "launch" / "demo.sh").read_text(), re.MULTILINE)
    return sorted({line.strip() for line in lines if line.strip()})


def test_there_are_commands() -> None:
    assert len(commands()) > 12


@pytest.mark.parametrize("command", [c for c in commands() if "data_tools" in c or "launch/" in c])
def test_a_command_names_what_exists_and_its_keys_are_valid(command: str) -> None:
    words = shlex.split(command, comments=True)
    program = next((w for w in words if w in SCHEMAS or (w in COMMANDS and "data_tools" in words)), None)
    assert program in SCHEMAS or program in COMMANDS, f"unknown program in {command!r}"
    if program.endswith(".py"):
        assert (ROOT / program).exists()
    config = next((w for w in words if w.startswith("configs/")), None)
    assert config is None or (ROOT / config).exists()
    schema = SCHEMAS.get(program)
    if schema is not None:
        given = [w.replace("$folder", "demo").replace("$uri", "random") for w in words if re.match(r"[a-z_.]+=", w)]
        needed = ["input=x"] if schema is Prepare and not any(w.startswith("input=") for w in given) else []
        needed += (
            ["path=x"] if isinstance(schema, type) and "path" in schema.model_fields and "data_tools" in words else []
        )
        load(schema, ROOT / config if config else None, needed + given)


@pytest.mark.parametrize("command", [c for c in commands() if "-m fbm_dist.registry " in c])
def test_a_command_of_the_registry_is_valid(command: str) -> None:
    words = shlex.split(command, comments=True)
    words = [word for word in words[words.index("fbm_dist.registry") + 1 :] if word != "--json"]
    parsed(words[0], words[1:])


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE)))
)
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_tree_in_the_readme_is_the_tree() -> None:
    text = (ROOT / "README.md").read_text()
    tree = text.split("## Where things are", 1)[1].split("```")[1]
    folder = ""
    for line in tree.splitlines():
        match = re.match(r"( *)([\w./]+)", line)
        if match:
            indent, name = match.groups()
            folder = "" if not indent else folder
            assert (ROOT / folder / name).exists(), f"the README's tree names {folder}{name}"
            folder = name if not indent else folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link
