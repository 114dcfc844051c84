"""Configs are values: YAML 1.2 file + dotted overrides -> one frozen, typed pydantic model, or one clear line of error."""

from __future__ import annotations

import difflib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from upath import UPath

from data_tools.places import Place, place

Model = TypeVar("Model", bound=BaseModel)
YAML_MARKS = tuple("\"'|>!&*")  # a value that begins with one is more than a plain text


def _placed(value: Any) -> Place:
    if not isinstance(value, str | PurePath | UPath):
        raise ValueError("give a path, or a URL that fsspec knows (s3://bucket/folder)")
    return value if isinstance(value, UPath) else place(value)


# the type of a key that names a file or folder, here or in object storage
Where = Annotated[Place, PlainValidator(_placed), PlainSerializer(str, return_type=str)]


class ConfigError(ValueError):
    """A config that cannot be used. Its text is one line: where, what, and what to do."""


class Config(BaseModel):
    """Base of every config section: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# what a file is an image of: a model, or a function that chooses one by the file's tree
Schema = type[Model] | Callable[[dict[str, Any]], type[Model]]


def load(schema: Schema[Model], path: str | Path | None = None, overrides: Sequence[str] = ()) -> Model:
    """Read `path` (YAML 1.2), apply `overrides` ("a.b=c", value in YAML), validate as `schema`.

    Args:
        schema: the pydantic model that the file is an image of, or a function that chooses it by the tree, overrides included.
        path: the YAML file; None starts from the schema's defaults.
        overrides: dotted assignments, applied in order, e.g. `["data.path=shards", "optimizer.lr=1e-4"]`.
    Raises:
        ConfigError: unreadable file, unknown key (with the nearest valid one), wrong type, broken rule.
    """
    tree = _read(Path(path)) if path is not None else {}
    raw: dict[tuple[str, ...], str] = {}
    for override in overrides:
        raw.update(_assign(tree, override))
    where = str(path) if path is not None else schema.__name__
    if not isinstance(schema, type):
        try:
            schema = schema(tree)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    return _validate(schema, tree, raw, where)


def dump(config: BaseModel) -> str:
    """The config as YAML 1.2 text that `load` reads back to an equal value."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(json.loads(config.model_dump_json()), stream)
    return stream.getvalue()


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, found {type(tree).__name__}")
    return tree


def _assign(tree: dict[str, Any], override: str) -> dict[tuple[str, ...], str]:
    """Set one dotted override in `tree`; returns its path and raw text."""
    key, equals, text = override.partition("=")
    parts = tuple(key.strip().split("."))
    if not equals or not all(parts):
        raise ConfigError(f"override {override!r}: expected a.b=value")
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ConfigError(f"override {override!r}: not valid YAML: {' '.join(str(error).split())}") from None
    if isinstance(value, str) and text.lstrip()[:1] not in YAML_MARKS:
        value = text.strip()  # `input=films #2`: a plain text has no comments
    node = tree
    for part in parts[:-1]:
        child = node.get(part)
        if not isinstance(child, dict):
            child = node[part] = {}
        node = child
    node[parts[-1]] = value
    return {parts: text}


def _validate(schema: type[Model], tree: dict[str, Any], raw: dict[tuple[str, ...], str], where: str) -> Model:
    try:
        return schema.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        if raw and _restore_text(tree, raw, error):  # `name=123` for a string field: the user meant the text
            return _validate(schema, tree, {}, where)
        errors = [e for e in error.errors() if not _follows(e, error.errors())]
        raise ConfigError("; ".join(dict.fromkeys(_explain(schema, tree, e, where) for e in errors))) from None


def _follows(error: Any, errors: Sequence[Any]) -> bool:
    """Whether a list is too short only because its items are wrong."""
    loc = error["loc"]
    return error["type"] == "too_short" and any(
        len(e["loc"]) > len(loc) and e["loc"][: len(loc)] == loc for e in errors
    )


def _restore_text(tree: dict[str, Any], raw: dict[tuple[str, ...], str], error: ValidationError) -> bool:
    changed = False
    for e in error.errors():
        path = _without_tags(tree, e["loc"])
        number = e["type"] == "value_error" and isinstance(e["input"], int | float)  # a path, where a number was read
        if (e["type"] in ("string_type", "path_type") or number) and path in raw:
            node = tree
            for part in path[:-1]:
                node = node[part]
            node[path[-1]] = raw[path]
            changed = True
    return changed


def _without_tags(tree: Any, loc: Sequence[str | int]) -> tuple[str, ...]:
    """A pydantic error location without the tags of discriminated unions, which are no keys of the file."""
    path: list[str] = []
    node = tree
    for i, part in enumerate(loc):
        last = i == len(loc) - 1
        if isinstance(node, dict) and part not in node and (not last or "[" in str(part)):
            continue
        if i and not isinstance(node, dict | list):  # below a value there are only the alternatives of its type
            break
        path.append(str(part))
        if isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
    return tuple(path)


def _explain(schema: type[BaseModel], tree: dict[str, Any], e: Any, where: str) -> str:
    path = ".".join(_without_tags(tree, e["loc"]))
    if e["type"] == "extra_forbidden":
        best = _nearest(path, list(_keys(schema, tree)))
        return f"{where}: unknown key {path!r}; the nearest valid key is {best!r}"
    if e["type"] == "missing":
        needed = _required(schema, path) or path
        return f"{where}: {needed!r} is missing; give it {_how(needed)}"
    if e["type"].startswith("union_tag"):
        key, known = e["ctx"]["discriminator"].strip("'"), e["ctx"].get("expected_tags")
        choices = known or ", ".join(repr(name) for name in _choices(schema, path, key))
        got = f" (got {e['ctx']['tag']!r})" if "tag" in e["ctx"] else ""
        return f"{where}: {path}.{key} says which of {choices} is meant{got}; give it {_how(f'{path}.{key}')}"
    message = e["msg"].removeprefix("Value error, ")
    got = e.get("input")
    shown = "" if isinstance(got, dict) else f" (got {json.dumps(got, default=str)})"
    return f"{where}: {path}: {message}{shown}" if path else f"{where}: {message}"


def _nearest(path: str, valid: list[str]) -> str:
    """The valid key that was probably meant: of the same section, else of the same last word, else that looks alike."""
    plain = ".".join(part for part in path.split(".") if not part.isdigit())  # a key has no number of an item
    section, _, leaf = plain.rpartition(".")
    siblings = [key for key in valid if section and key.rpartition(".")[0] == section]
    alike = [key for key in valid if key.rpartition(".")[2] == leaf]
    if not siblings and alike:
        return alike[0]
    near = difflib.get_close_matches(plain, siblings or valid, n=1, cutoff=0.0)
    return near[0] if near else "none"


def _how(path: str) -> str:
    """How a key is given; an item of a list cannot be given by itself on the command line."""
    numbered = any(part.isdigit() for part in path.split("."))
    return "in the file" if numbered else f"in the file or as {path}=VALUE"


def _required(schema: type[BaseModel], path: str) -> str | None:
    """The first key within the section `path` that has no default; None where `path` is no section."""
    for name, field in schema.model_fields.items():
        for model in _models(field.annotation):
            if path == name:
                return next((f"{name}.{key}" for key, inner in model.model_fields.items() if inner.is_required()), None)
            if path.startswith(f"{name}.") and (found := _required(model, path[len(name) + 1 :])):
                return f"{name}.{found}"
    return None


def _keys(schema: type[BaseModel], tree: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key that `schema` accepts; of a union that a key tells apart, those of the model that `tree` names."""
    for name, field in schema.model_fields.items():
        yield prefix + name
        inner = tree.get(name) if isinstance(tree, dict) else None
        models = list(_models(field.annotation))
        named = [model for model in models if _is_named(model, inner, field.discriminator)]
        for model in named or models:
            yield from _keys(model, inner, f"{prefix}{name}.")


def _is_named(model: type[BaseModel], tree: Any, key: Any) -> bool:
    """Whether `tree` says by its discriminator that it is this model."""
    field = model.model_fields.get(key) if isinstance(key, str) else None
    return field is not None and isinstance(tree, dict) and tree.get(key) in get_args(field.annotation)


def _choices(schema: type[BaseModel], path: str, key: str) -> list[str]:
    """What the discriminator `key` of the section `path` may be."""
    models: list[type[BaseModel]] = [schema]
    for part in path.split("."):
        models = [
            m for model in models if part in model.model_fields for m in _models(model.model_fields[part].annotation)
        ]
    return [
        value for model in models if key in model.model_fields for value in get_args(model.model_fields[key].annotation)
    ]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
