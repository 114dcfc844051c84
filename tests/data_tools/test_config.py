"""Configs: YAML 1.2, dotted overrides, and errors of one line that name the path and the nearest valid key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from data_tools.config import Config, ConfigError, Where, dump, load


class Small(Config):
    kind: Literal["small"] = "small"
    rate: float = 0.1


class Large(Config):
    kind: Literal["large"] = "large"
    depth: int = 3


class Part(Config):
    lr: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    name: str | None = None
    folder: Path = Path("here")


class Whole(Config):
    part: Part = Part()
    net: Annotated[Small | Large, Field(discriminator="kind")] = Small()
    nets: tuple[Small, ...] = ()
    on: bool = True


class Inputs(Config):
    input: Path | tuple[Path, ...]


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_yaml_1_2_numbers_and_words(tmp_path: Path) -> None:
    config = load(Whole, write(tmp_path, "part: {lr: 1e-4, name: on, betas: [0.5, 1]}\n"))
    assert config.part.lr == 1e-4
    assert config.part.name == "on"  # YAML 1.1 would read `on` as true
    assert config.part.betas == (0.5, 1.0)


def test_overrides_win_over_the_file_and_are_typed(tmp_path: Path) -> None:
    path = write(tmp_path, "part: {lr: 0.5}\n")
    config = load(Whole, path, ["part.lr=2e-3", "part.name=007", "part.folder=2026", "on=false"])
    assert config.part.lr == 2e-3
    assert config.part.name == "007"  # text stays text
    assert config.part.folder == Path("2026")
    assert config.on is False


def test_tagged_union_by_override() -> None:
    assert load(Whole, None, ["net.kind=large", "net.depth=5"]).net == Large(depth=5)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["part.lrr=1"], ["unknown key 'part.lrr'", "'part.lr'"]),
        (["prat.lr=1"], ["unknown key 'prat'", "'part'"]),
        (["lr=1"], ["unknown key 'lr'", "'part.lr'"]),
        (["part.lr=fast"], ["part.lr", "number", '"fast"']),
        (["part.lr=-1"], ["part.lr", "greater than 0"]),
        (["part.betas=[1]"], ["part.betas"]),
        (["net.kind=large", "net.rate=1"], ["unknown key 'net.rate'"]),
        (["net.kind=large", "net.depht=1"], ["the nearest valid key is 'net.depth'"]),
        (["net.rate=1"], ["net.kind says which of 'small', 'large' is meant", "net.kind=VALUE"]),
        (["net.kind=huge"], ["net", "small", "large"]),
        (["on=1"], ["on", "boolean"]),
        (["part"], ["a.b=value"]),
        (["part.name=[1"], ["not valid YAML"]),
    ],
)
def test_a_mistake_is_one_clear_line(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Whole, None, overrides)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("text", ["- a list\n", "part: [unclosed\n", "\tpart: 1\n"])
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=r"config\.yaml") as caught:
        load(Whole, path)
    assert "\n" not in str(caught.value)


def test_a_function_chooses_the_schema_by_the_whole_tree(tmp_path: Path) -> None:
    def choose(tree: dict[str, object]) -> type[Config]:
        if tree.get("kind") == "large":
            return Large
        raise ConfigError("'kind' is not large")

    path = write(tmp_path, "kind: small\ndepth: 4\n")
    assert load(choose, path, ["kind=large"]) == Large(depth=4)
    with pytest.raises(ConfigError, match=r"config\.yaml: 'kind' is not large"):
        load(choose, path)


class Listed(Config):
    smalls: tuple[Small, ...] = Field((), min_length=1)


def test_a_mistake_within_a_list_names_a_key_of_its_items() -> None:
    with pytest.raises(ConfigError) as caught:
        load(Listed, None, ["smalls=[{rates: 1}]"])
    assert str(caught.value) == "Listed: unknown key 'smalls.0.rates'; the nearest valid key is 'smalls.rate'"


def test_a_number_may_name_a_folder() -> None:
    class Placed(Config):
        there: Where

    assert load(Placed, None, ["there=2024"]).there == Path("2024")


def test_missing_file() -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        load(Whole, "nowhere.yaml")


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(Whole).part.lr = 1.0  # type: ignore[misc]


@given(
    lr=st.floats(min_value=1e-30, max_value=1e30),
    name=st.one_of(st.none(), st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["C", "Z"]))),
)
def test_dump_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, lr: float, name: str | None) -> None:
    config = Whole(part=Part(lr=lr, name=name), net=Large(depth=2), nets=(Small(rate=0.5),))
    path = write(tmp_path_factory.mktemp("dump"), dump(config))
    assert load(Whole, path) == config


@pytest.mark.parametrize("name", ["films #2", "a: b", "a[1]", "#1", " ", "5", "no", "~"])
def test_a_path_is_taken_as_it_is_typed(name: str) -> None:
    assert load(Part, None, [f"folder=in/{name}x"]).folder == Path(f"in/{name}x")
    assert load(Inputs, None, [f"input={name}x"]).input == Path(f"{name}x".strip())


def test_quotes_and_lists_are_still_yaml() -> None:
    assert load(Part, None, ["folder='a #b' # why"]).folder == Path("a #b")
    assert load(Inputs, None, ["input=[a, b]"]).input == (Path("a"), Path("b"))


def test_a_mistake_in_a_choice_of_types_names_the_key_alone() -> None:
    with pytest.raises(ConfigError, match=r"^Inputs: input: Input should") as caught:
        load(Inputs, None, ["input.deeper=1"])
    assert "lax-or-strict" not in str(caught.value)


class Needy(Config):
    inner: Whole
    folder: RunLike


class RunLike(Config):
    name: str = "x"
    path: Path


def test_a_missing_section_names_the_key_to_give() -> None:
    Needy.model_rebuild()
    with pytest.raises(ConfigError, match=r"'folder\.path' is missing; give it in the file or as folder\.path=VALUE"):
        load(Needy, None, ["inner.on=true"])
    with pytest.raises(ConfigError, match=r"'folder\.path' is missing"):
        load(Needy, None, ["inner.on=true", "folder.name=y"])
