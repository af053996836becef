"""The base of every typed config, and the way from YAML and `key=value` to a checked one."""

import difflib
import json
import re
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from raysparse.errors import ConfigError

Tree = dict[str, Any]

Fault = tuple[tuple[int | str, ...], object, str]
"""Where in a config, what was found there, what is allowed."""

_NOTHING = object()


class Config(BaseModel):
    """A frozen config that knows its keys: an unknown one is an error, never ignored.

    The string under a field is its description, in the JSON schema too.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


ConfigType = TypeVar("ConfigType", bound=Config)


class _YamlLoader(yaml.SafeLoader):
    """YAML 1.2 numbers: `1e-3` is a float (PyYAML reads a string); a date, and a day `010`, stay text.

    A key that is given twice is an error.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in lines:
                text = f"the key {key.value!r} is given twice, first in line {lines[key.value]}; remove one"
                raise yaml.MarkedYAMLError(problem=text, problem_mark=key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return node


_YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":int", ":float", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_WHOLE = r"(0|[1-9][\d_]*)"
for _tag, _pattern in (
    ("tag:yaml.org,2002:int", rf"^[-+]?({_WHOLE}|0b[01_]+|0x[\da-fA-F_]+)$"),
    (
        "tag:yaml.org,2002:float",
        rf"^[-+]?({_WHOLE}\.\d*|\.\d+|{_WHOLE})([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$",
    ),
):
    _YamlLoader.add_implicit_resolver(_tag, re.compile(_pattern), list("-+0123456789."))


def parse_yaml(text: str, origin: str) -> Any:
    """Read YAML, naming `origin` and the line where it does not parse."""
    try:
        return yaml.load(text, Loader=_YamlLoader)  # a subclass of SafeLoader: builds no objects
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin} is not valid YAML: {error}") from error


def load_tree(path: str | Path, overrides: tuple[str, ...] = (), config_types: Sequence[type[Config]] = ()) -> Tree:
    """Read a YAML file as a tree of keys and lay `dotted.key=value` overrides over it, as `override` does."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds {type(tree).__name__}, not keys and values")
    return override(tree, overrides, config_types)


def override(tree: Tree, overrides: tuple[str, ...], config_types: Sequence[type[Config]] = ()) -> Tree:
    """Return `tree` with each `dotted.key=value` laid over it; a value is read as YAML.

    A `kind` (or `source`) that changes drops its neighbours, which belonged to the other kind. Those that an override
    before it gave stay, and so do all where one class of `config_types`, which the tree may be, is for both kinds.
    """
    result: Tree = json.loads(json.dumps(tree))
    given: list[str] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"the override {text!r} is not of the form key=value")
        *parents, leaf = key.split(".")
        node = _descend(result, parents, text)
        parsed = parse_yaml(value, f"the override {text!r}")
        if isinstance(node, list):
            node[_list_index(node, leaf, text)] = parsed
        else:
            changes = leaf in ("kind", "source") and node.get(leaf) not in (None, parsed) and parents
            if changes and not _share_a_class(config_types, parents, (node[leaf], parsed)):
                _drop_neighbours(node, key.removesuffix(leaf), given)
            node[leaf] = parsed
        given.append(key)
    return result


def _share_a_class(config_types: Sequence[type[Config]], parents: list[str], kinds: tuple[Any, Any]) -> bool:
    candidates = list(config_types)
    for part in parents:
        # A part that is no field is a place in a list, a name of the user's, or the train job in a tune job.
        candidates = _fields_named(candidates, part) or candidates
    return any(all(kind in _tags_of(candidate) for kind in kinds) for candidate in candidates)


def _drop_neighbours(node: Tree, prefix: str, given: list[str]) -> None:
    for name in list(node):
        if not any(f"{key}.".startswith(f"{prefix}{name}.") for key in given):
            del node[name]


def _descend(tree: Tree, parents: list[str], text: str) -> Tree | list[Any]:
    node: Any = tree
    for part in parents:
        if isinstance(node, list):
            node = node[_list_index(node, part, text)]
        elif isinstance(node, dict):
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        if not isinstance(node, dict | list):
            raise ConfigError(f"the override {text!r} goes below {part!r}, which holds the value {node!r}")
    return node


def _list_index(node: list[Any], part: str, text: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(f"the override {text!r} names {part!r} in a list of {len(node)} entries (0 is the first)")
    return int(part)


def differences(found: Any, wanted: Any, key: str = "") -> list[tuple[str, str, str]]:
    """Return the keys, dotted, under which two trees differ, and both values as JSON, `nothing` where there is none."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = sorted({*found, *wanted})
        parts = [(name, found.get(name, _NOTHING), wanted.get(name, _NOTHING)) for name in names]
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        parts = list(zip(map(str, range(len(found))), found, wanted, strict=True))
    else:
        return [] if found == wanted else [(key, _shown(found), _shown(wanted))]
    return [
        difference
        for name, one, other in parts
        for difference in differences(one, other, f"{key}.{name}" if key else name)
    ]


def _shown(value: Any) -> str:
    return "nothing" if value is _NOTHING else json.dumps(value)


def check(config_type: type[ConfigType], tree: Tree, origin: str) -> ConfigType:
    """Turn a tree into its typed config, or raise one ConfigError that lists every fault.

    Each fault gives the dotted key, what was found and what is allowed.
    """
    try:
        # JSON mode: strict about types, and still reads a list as a tuple and a text as a literal.
        return config_type.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        faults = [_fault(config_type, tree, details) for details in error.errors()]
        plural = "fault" if len(faults) == 1 else "faults"
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise ConfigError(f"{origin} has {len(faults)} {plural}:\n{lines}") from None


def refuse(config: Config, faults: Iterable[Fault]) -> None:
    """Raise the faults between several keys, each under its own, where there are any; for validators."""
    found_faults = [
        InitErrorDetails(type=PydanticCustomError("fault", "{allowed}", {"allowed": allowed}), loc=loc, input=found)
        for loc, found, allowed in faults
    ]
    if found_faults:
        raise ValidationError.from_exception_data(type(config).__name__, found_faults)


def _fault(config_type: type[Config], tree: Tree, details: ErrorDetails) -> str:
    kind = details["type"]
    key = ".".join(_path_in_tree(tree, details["loc"])) or "(the whole job)"
    if kind == "extra_forbidden":
        allowed = _keys_at(config_type, details["loc"][:-1])
        near = difflib.get_close_matches(str(details["loc"][-1]), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{key}: unknown key; allowed here: {', '.join(allowed)}{hint}"
    if kind == "missing":
        return f"{key}: missing; it has to be given"
    if kind == "union_tag_invalid":
        tags = details.get("ctx", {})
        tag = str(tags.get("discriminator", "kind")).strip("'")
        return f"{key}.{tag}: found {tags.get('tag')!r}; allowed: {tags.get('expected_tags')}"
    if kind == "union_tag_not_found":
        tag = str(details.get("ctx", {}).get("discriminator", "kind")).strip("'")
        return f"{key}.{tag}: missing; it says which kind this is"
    found = details["input"]
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "value_error" and isinstance(found, dict):
        return f"{key}: allowed: {message}"  # between keys below, which the message names
    return f"{key}: found {json.dumps(found, default=str)}; allowed: {message}"


def _path_in_tree(tree: Any, loc: tuple[int | str, ...]) -> list[str]:
    """Drop from a pydantic location the tags of unions, which are no keys of the user's file."""
    path: list[str] = []
    node = tree
    for position, part in enumerate(loc):
        # The last part may be a key that is not there.
        last = position == len(loc) - 1
        if isinstance(node, dict) and (part in node or (last and part not in (node.get("kind"), node.get("source")))):
            path.append(str(part))
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int):
            path.append(str(part))
            node = node[part] if part < len(node) else None
    return path


def _keys_at(config_type: type[Config], loc: tuple[int | str, ...]) -> list[str]:
    candidates = [config_type]
    for part in loc:
        tagged = [candidate for candidate in candidates if part in _tags_of(candidate)]
        candidates = _fields_named(candidates, part) or tagged or candidates
    return sorted({name for candidate in candidates for name in candidate.model_fields})


def _fields_named(candidates: Sequence[type[Config]], name: int | str) -> list[type[Config]]:
    fields = [candidate.model_fields[name] for candidate in candidates if name in candidate.model_fields]
    return [config for field in fields for config in _configs_in(field.annotation)]


def _configs_in(annotation: Any) -> list[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, Annotated, tuple, list, dict):
        return [config for part in get_args(annotation) for config in _configs_in(part)]
    return []


def _tags_of(config: type[Config]) -> tuple[Any, ...]:
    """The kinds that a class is for."""
    tagged = [config.model_fields[name] for name in ("kind", "source") if name in config.model_fields]
    return tuple(tag for field in tagged for tag in get_args(field.annotation))
