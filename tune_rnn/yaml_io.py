"""YAML as people write it: `1e-4` is a number, a key written twice is a mistake, errors name the line.

PyYAML follows YAML 1.1, where `1e-4` (no dot, or no sign in the exponent) is a text. Reader and writer share
one more rule for floats, so that a text that looks like one is quoted when written, and stays a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tune_rnn.errors import InputError

_FLOAT, _DATE = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"
_EXPONENT = re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """Refuse a key that stands twice; done on the nodes, before `<<` merges keys that may repeat."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"the key {key.value!r} is written twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return node


class _Dumper(yaml.SafeDumper):
    """Lists and distributions on one line, everything else indented; no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style=True)

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        only_a_list = len(mapping) == 1 and all(isinstance(value, list) for value in mapping.values())
        return super().represent_mapping(tag, mapping, flow_style=only_a_list)


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+.0123456789"))
_Loader.yaml_implicit_resolvers = {  # a name like 2024-01-31 is a text
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _DATE]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def load_yaml(text: str, where: str) -> dict[str, Any]:
    """Read the mapping in `text`; `where` (a file's name) starts the message of an InputError."""
    content = load_yaml_value(text, where)
    if content is None:
        raise InputError(where, "there is nothing in it", "Write at least a line `name: my-study`.")
    if not isinstance(content, Mapping):
        raise InputError(where, "must be `key: value` lines", "Start with `name: my-study`.", content)
    return dict(content)


def load_yaml_value(text: str, where: str) -> Any:
    """Read any YAML value, for example the right side of an override."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise InputError(place, error.problem or "not YAML", _remedy(error)) from error
    except (yaml.YAMLError, RecursionError) as error:  # control characters; [[[[…
        reason = " ".join(str(error).split())
        raise InputError(where, f"not YAML: {reason}", "Quote texts that look like something else.") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a UTF-8 file."""
    return load_yaml(_read_text(path), str(path))


def dump_yaml(content: Mapping[str, Any]) -> str:
    """Write mappings, lists and scalars as text that `load_yaml` reads back equal."""
    return yaml.dump(
        dict(content),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=110,
    )


def _remedy(error: yaml.MarkedYAMLError) -> str:
    if "written twice" in (error.problem or ""):
        return "Keep one of the two."
    return "Check indentation, brackets and quotes there (spaces, no tabs; a blank after every colon)."


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(str(path), "there is no such file", "Give the path of an experiment file.") from error
    except IsADirectoryError as error:
        remedy = f"Give the file in it, for example {path / 'study.yaml'}."
        raise InputError(str(path), "this is a directory, not an experiment file", remedy) from error
    except UnicodeDecodeError as error:
        rule = f"not UTF-8 text: byte {error.start} cannot be read"
        raise InputError(str(path), rule, "Save the file as UTF-8.") from error
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}", "Check its permissions.") from error
