"""encoder.pt2 is opened after a look into it: raw tensors and a graph of known operators pass, anything else is refused.

`torch.export.load` by itself is not for files of strangers: it unpickles what an archive says is pickled, calls whatever function of
torch a graph names, and evaluates the text of symbolic shapes. So an archive is first read here, with zipfile and json: it may hold
tensors as plain bytes, and one graph that calls operators of OPERATORS on them. What torch gets to see is a new archive of the members
that were looked at, so that both cannot read the same bytes in two ways.
"""

from __future__ import annotations

import io
import json
import logging
import re
import zipfile
from collections.abc import Iterator
from keyword import iskeyword
from typing import Any

import torch
from torch.export import ExportedProgram

# Operators of torch.ops.aten that compute from tensors alone; a new family's may be added if they touch no file, no library, no process.
NAMES = """
    _assert_tensor_metadata _softmax abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d add add_ addmm alias amax amin
    avg_pool1d avg_pool2d avg_pool3d batch_norm bmm cat chunk clamp clamp_ clamp_max clamp_min clone contiguous conv1d conv2d conv3d
    conv_transpose2d conv_transpose3d cos cumsum detach detach_ div div_ dropout einsum elu exp expand expand_as flatten flip gelu
    group_norm gru hardtanh instance_norm layer_norm leaky_relu leaky_relu_ lift_fresh_copy linalg_vector_norm linear log log_softmax
    lstm matmul max_pool1d max_pool2d max_pool3d mean mm mul mul_ narrow neg new_zeros ones ones_like pad permute pow reciprocal
    reflection_pad2d relu relu_ repeat replication_pad2d reshape rsqrt rsub scaled_dot_product_attention select sigmoid silu sin slice
    softmax softplus split split_with_sizes sqrt square squeeze stack sub sub_ sum sym_size tanh tanh_ to transpose unbind unflatten
    unsqueeze upsample_bilinear2d upsample_nearest2d upsample_nearest3d upsample_trilinear3d view view_as where zeros zeros_like
    _to_copy arange constant_pad_nd full scalar_tensor index_select gather unfold
"""
OPERATORS = frozenset(NAMES.split())
CALL = re.compile(r"torch\.ops\.aten\.([a-z0-9_]+)\.[A-Za-z0-9_]+|_operator\.(?:getitem|add|sub|mul|floordiv)")
# The text of a size, which sympy evaluates: sums and products of numbers and of the open number of clips.
FORMULA = re.compile(
    r"s\d+|(?:Symbol\('s\d+'(?:, (?:positive|integer|nonnegative)=True)*\)|Integer\(-?\d{1,18}\)|(?:Add|Mul|FloorDiv)\(|, |\))+"
)
NAME = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]*")
PLAIN = re.compile(r"[A-Za-z0-9_.+-]*")
CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
BARRED = frozenset(
    {"as_graph", "as_graphs", "as_custom_obj", "as_operator", "as_complex"}
)  # arguments that are more than numbers
KINDS = ("user_input", "parameter", "buffer", "tensor_constant", "user_output")
GRAPH = "models/model.json"
PAYLOADS = {
    "data/weights/model_weights_config.json": "weight_",
    "data/constants/model_constants_config.json": "tensor_",
}
EMPTY = "data/sample_inputs/model.pt"  # a pickle, where an archive has one
MEMBER = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|extra/[a-z_]+\.json|\.data/version|\.data/serialization_id"
    r"|archive_format|archive_version|byteorder"
)
WRITTEN = "it was not written by `export` or `pull`; make it again from the registry"


def open_program(content: bytes, name: str) -> ExportedProgram:
    """The program that the bytes of a .pt2 hold.

    Raises:
        ValueError: they hold none, or one that does anything but compute; in one line that begins with `name`.
    """
    looked = screened(content, name)
    logger = logging.getLogger("torch.export")  # it logs what it raises, a page of it
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        return torch.export.load(io.BytesIO(looked))
    except Exception as error:  # whatever a damaged graph makes of it
        raise ValueError(f"{name}: no program that torch {torch.__version__} can load: {_line(error)}") from None
    finally:
        logger.setLevel(level)


def screened(content: bytes, name: str) -> bytes:
    """The same archive, written anew from the members that were looked at.

    Raises:
        ValueError: as `open_program`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = _members(archive)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{name}: not a program of torch.export, or cut short: {_line(error)}") from None
    except _RefusedError as error:
        raise ValueError(f"{name}: refused: {error}; {WRITTEN}") from None
    try:
        for path, prefix in PAYLOADS.items():
            _check_payload(json.loads(members[path]), path.rpartition("/")[0], prefix, members)
        _check_graph(json.loads(members[GRAPH]))
    except _RefusedError as error:
        raise ValueError(f"{name}: refused: {error}; {WRITTEN}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{name}: refused: its graph has another form ({_line(error)}); {WRITTEN}") from None
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path, data in members.items():
            archive.writestr(zipfile.ZipInfo(f"encoder/{path}"), data)
    return buffer.getvalue()


class _RefusedError(ValueError):
    """What an archive holds that it must not."""


def _members(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """Every member, by its path below the archive's one folder. None is packed: what is read is no larger than the file."""
    out: dict[str, bytes] = {}
    for info in archive.infolist():
        path = info.filename.partition("/")[2]
        if path in out or info.compress_type != zipfile.ZIP_STORED:
            raise _RefusedError(f"its member {info.filename!r} is there twice, or packed")
        known = path in (GRAPH, EMPTY, *PAYLOADS) or MEMBER.fullmatch(path)
        if not known or (path == EMPTY and info.file_size):
            raise _RefusedError(f"it holds {info.filename!r}, which is no tensor and no graph")
        out[path] = archive.read(info)
    if len({info.filename.partition("/")[0] for info in archive.infolist()}) != 1 or not {GRAPH, *PAYLOADS} <= set(out):
        raise _RefusedError("it has not the members of one program")
    return out


def _check_payload(config: Any, folder: str, prefix: str, members: dict[str, bytes]) -> None:
    """Every tensor is plain bytes in a member of its own."""
    for key, said in config["config"].items():
        path = said["path_name"]
        if said["use_pickle"] is not False or not re.fullmatch(rf"{prefix}\d+", path):
            raise _RefusedError(f"{key!r} is pickled")
        if not members[f"{folder}/{path}"]:
            raise _RefusedError(f"{key!r} has no values")


def _check_graph(program: Any) -> None:
    """Only known operators, sizes that are plain formulas, no code in text."""
    if program.get("guards_code"):
        raise _RefusedError("it has guards in code")
    for symbol in program["range_constraints"]:
        _check_formula(symbol)
    module = program["graph_module"]
    for node in module["graph"]["nodes"]:
        called = CALL.fullmatch(node["target"])
        if called is None or (called[1] is not None and called[1] not in OPERATORS):
            raise _RefusedError(
                f"it calls {node['target'][:80]!r}, which is not among the operators that an encoder needs"
            )
        if node["metadata"]:
            raise _RefusedError("its nodes have metadata")
    for side in ("input_specs", "output_specs"):
        for spec in module["signature"][side]:
            if not set(spec) <= set(KINDS):
                raise _RefusedError(f"it takes or gives {sorted(spec)}")
    for key, value in _walk(program):
        if key in BARRED and value is not None:
            raise _RefusedError(f"it has an argument {key[3:]!r}")
        if isinstance(value, str):
            _check_text(key, value)


def _check_text(key: str, text: str) -> None:
    """Names become code when a graph is compiled, and formulas are evaluated: they are names and formulas and nothing else."""
    if key == "expr_str":
        _check_formula(text)
    elif key in ("in_spec", "out_spec"):
        if text:
            _check_containers(json.loads(text))
    elif key in ("name", "forward_arg_names"):
        if not NAME.fullmatch(text) or iskeyword(text):
            raise _RefusedError(f"a value is called {text[:80]!r}")
    elif not PLAIN.fullmatch(text):
        raise _RefusedError(f"its {key} is {text[:80]!r}")


def _check_formula(text: Any) -> None:
    if not isinstance(text, str) or not FORMULA.fullmatch(text):
        raise _RefusedError(f"a size is {str(text)[:80]!r}")


def _check_containers(tree: Any) -> None:
    """Inputs and outputs are tensors in tuples, lists and dicts."""
    for key, value in _walk(tree):
        if key == "type" and value not in CONTAINERS:
            raise _RefusedError(f"it takes or gives a {str(value)[:80]!r}")


def _walk(tree: Any) -> Iterator[tuple[str, Any]]:
    """Every value in `tree` with the key that it stands under; keys are given, too, as values of ""."""
    stack: list[tuple[str, Any]] = [("", tree)]
    while stack:
        under, node = stack.pop()
        yield under, node
        if isinstance(node, dict):
            stack += node.items()
            stack += [("", key) for key in node]
        elif isinstance(node, list):
            stack += [(under, item) for item in node]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
