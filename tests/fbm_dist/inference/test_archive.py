"""A program is opened only if it is a graph of known operators on raw tensors: every other thing an archive may hold is refused."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fbm_dist.inference.archive import open_program, screened
from fbm_dist.registry.exports.program import bare

GRAPH, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, video: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": self.linear(video).relu()}


@pytest.fixture(scope="module")
def content() -> bytes:
    torch.manual_seed(0)
    shapes = {"video": {0: torch.export.Dim("batch", min=1)}}
    program = bare(torch.export.export(Net().eval(), (torch.zeros(2, 4),), dynamic_shapes=shapes))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}


def packed(parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(f"x/{name}", data)
    return buffer.getvalue()


def changed(content: bytes, member: str, change: Callable[[Any], None]) -> bytes:
    parts = members(content)
    tree = json.loads(parts[member])
    change(tree)
    return packed(parts | {member: json.dumps(tree).encode()})


def refused(content: bytes) -> str:
    with pytest.raises(ValueError, match=r"^x\.pt2: ") as caught:
        open_program(content, "x.pt2")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_opened(content: bytes) -> None:
    module = open_program(content, "x.pt2").module()
    assert module(torch.rand(5, 4))["a"].shape == (5, 2)
    assert module(torch.rand(1, 4))["a"].shape == (1, 2)
    assert screened(content, "x") == screened(screened(content, "x"), "x")


def graph(tree: Any) -> Any:
    return tree["graph_module"]["graph"]


def first(tree: Any) -> Any:
    return graph(tree)["nodes"][0]


CODE = "__import__('pathlib').Path('reached').touch()"
CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "a function of torch": (lambda t: first(t).update(target="torch.os.system"), "torch.os.system"),
    "an operator that maps files": (lambda t: first(t).update(target="torch.ops.aten.from_file.default"), "from_file"),
    "an operator of a library": (lambda t: first(t).update(target="torch.ops.mine.run.default"), "mine.run"),
    "a triton kernel": (lambda t: first(t).update(target="#triton:run"), "#triton"),
    "guards": (lambda t: t.update(guards_code=[CODE]), "guards in code"),
    "a symbol": (lambda t: t["range_constraints"].update({CODE: {"min_val": 0, "max_val": 1}}), "a size is"),
    "a name that is code": (lambda t: first(t).update(name=CODE), "a value is called"),
    "an input that is code": (lambda t: graph(t)["inputs"][0]["as_tensor"].update(name=CODE), "a value is called"),
    "an argument's name": (lambda t: first(t)["inputs"][0].update(name="a=1, b"), "a value is called"),
    "metadata": (lambda t: first(t).update(metadata={"torch_fn": "x"}), "metadata"),
    "a graph in a graph": (lambda t: first(t)["inputs"][0].update(arg={"as_graph": {"name": "a"}}), "argument 'graph'"),
    "an object": (lambda t: first(t)["inputs"][0].update(arg={"as_custom_obj": {"name": "a"}}), "'custom_obj'"),
    "another kind of input": (
        lambda t: t["graph_module"]["signature"]["input_specs"].append({"custom_obj": {}}),
        "takes or gives",
    ),
    "a class among the outputs": (
        lambda t: t["graph_module"]["module_call_graph"][0]["signature"].update(
            out_spec=json.dumps([1, {"type": "collections.defaultdict", "context": "os", "children_spec": []}])
        ),
        "defaultdict",
    ),
    "no graph": (lambda t: t.pop("graph_module"), "another form"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_graph_that_does_more_is_refused(
    what: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change, said = CHANGES[what]
    assert said in refused(changed(content, GRAPH, change))
    assert not (tmp_path / "reached").exists()


def test_sizes_are_formulas(content: bytes) -> None:
    def change(tree: Any) -> None:
        sizes = next(iter(graph(tree)["tensor_values"].values()))["sizes"]
        sizes[0] = {"as_expr": {"expr_str": CODE, "hint": None}}

    assert "a size is" in refused(changed(content, GRAPH, change))


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(content: bytes, tmp_path: Path) -> None:
    evil = pickle.dumps(Touch(tmp_path / "reached"))
    parts = members(content)
    config = json.loads(parts[WEIGHTS])
    entry = next(iter(config["config"].values()))
    entry["use_pickle"] = True
    pickled = parts | {WEIGHTS: json.dumps(config).encode(), f"data/weights/{entry['path_name']}": evil}
    assert "is pickled" in refused(packed(pickled))
    constants = {"config": {"c": {**entry, "path_name": "opaque_obj_0", "use_pickle": False}}}
    name = "data/constants/model_constants_config.json"
    assert "pickled" in refused(packed(parts | {name: json.dumps(constants).encode()}))
    for member in ("data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/opaque_obj_0"):
        assert "no tensor and no graph" in refused(packed(parts | {member: evil}))
    assert not (tmp_path / "reached").exists()
    refused(evil)


def test_an_archive_of_anyone_else_is_refused(content: bytes) -> None:
    buffer = io.BytesIO()  # with example inputs, which torch pickles
    torch.export.save(torch.export.export(Net().eval(), (torch.zeros(2, 4),)), buffer)
    assert "sample_inputs" in refused(buffer.getvalue())


def test_damage_is_one_line(content: bytes) -> None:
    assert "cut short" in refused(content[: len(content) // 2])
    assert "not a program" in refused(b"")
    assert "packed" in refused(packed(members(content), zipfile.ZIP_DEFLATED))
    parts = members(content)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in parts.items():
            archive.writestr(f"x/{name}", data)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(f"x/{GRAPH}", parts[GRAPH])
    assert "twice" in refused(buffer.getvalue())
    assert "no values" in refused(packed(parts | {"data/weights/weight_0": b""}))
    assert "no program that torch" in refused(packed(parts | {"data/weights/weight_0": b"\0" * 4}))
    del parts["data/weights/weight_0"]
    assert "another form" in refused(packed(parts))
