"""YAML or JSON that nobody has reviewed → whether it is small enough to be built, told from its nodes before anything is built.

Unlike the policy and the profiles (`reading.py`), training configurations use anchors and merge keys, so these are taken; what they would
grow to is counted first. Tags name types, and are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from dispatcher.document import SIZE_LIMIT
from dispatcher.errors import ConfigError
from dispatcher.untrusted import code

# libyaml's where it is there: it is ten times as fast. Only its events and nodes are used.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DEPTH_LIMIT = 32
# Keys, items and values, and their characters, with everything that an alias stands for in its place.
NODES_LIMIT, CHARACTERS_LIMIT = 10_000, 512 * 1024


def measured(text: str, path: str, table: bool = True) -> int:
    """The number of keys, items and values in a text, with everything that an alias stands for in its place.

    `table`: it has to be one. Raises `ConfigError` `config.syntax` with the line for what is no YAML, has tags or several documents, or is
    or grows too big.
    """
    if len(text) > SIZE_LIMIT:
        raise ConfigError("config.syntax", f"`{path}` has {len(text):,} characters; {SIZE_LIMIT:,} are the limit.")
    try:
        for _ in _plain_events(text, path):
            pass
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = " ".join(part for part in (error.context, error.problem) if part)
        # The words may repeat what was read.
        raise _syntax(path, mark.line + 1 if mark else 1, code(words)) from error
    except (yaml.YAMLError, ValueError) as error:
        raise _syntax(path, 1, "contains a character that YAML does not allow") from error
    if node is None:
        return 0
    if table and not isinstance(node, yaml.MappingNode):
        raise _syntax(path, node.start_mark.line + 1, "it must be a table of `key: value`")
    return _Size(path).of(node)[0]


def read_json(text: str, path: str) -> tuple[dict[str, Any], int]:
    """A JSON object and the number of its keys, items and values. Raises `ConfigError` `config.syntax` as `measured` does."""
    if len(text) > SIZE_LIMIT:
        raise ConfigError("config.syntax", f"`{path}` has {len(text):,} characters; {SIZE_LIMIT:,} are the limit.")
    try:
        found = json.loads(text, object_pairs_hook=_once) if text.strip() else {}
    except json.JSONDecodeError as error:
        raise _syntax(path, error.lineno, error.msg) from error
    except (ValueError, RecursionError) as error:
        words = code(str(error)) if isinstance(error, ValueError) else "nested too deep"
        raise _syntax(path, 1, words) from error
    if not isinstance(found, dict):
        raise _syntax(path, 1, "it must be a table of `key: value`")
    count, left = 0, [(found, 0)]
    while left:
        value, depth = left.pop()
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        count += 1 + (len(value) if isinstance(value, dict) else 0)
        if depth > DEPTH_LIMIT:
            raise _syntax(path, 1, f"nested more than {DEPTH_LIMIT} deep")
        left += [(item, depth + 1) for item in inner]
    if count > NODES_LIMIT:
        raise _syntax(path, 1, f"it has more than {NODES_LIMIT:,} values")
    return found, count


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:60]!r} stands there twice")
        found[key] = value
    return found


def _plain_events(text: str, path: str) -> Iterator[yaml.Event]:
    """The parser's events; depth is counted here, because building the nodes is recursive already."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = event.start_mark.line + 1 if event.start_mark else 1
        if getattr(event, "tag", None):
            raise _syntax(path, line, "tags (`!…`) are not used here")
        if depth > DEPTH_LIMIT:
            raise _syntax(path, line, f"nested more than {DEPTH_LIMIT} deep")
        yield event


class _Size:
    """Counts a node as if its aliases were written out, each distinct node once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: dict[int, tuple[int, int, int]] = {}
        self._open: set[int] = set()

    def of(self, node: yaml.Node) -> tuple[int, int, int]:
        """Nodes, characters, depth. Raises `ConfigError` as soon as one of them is too much, or where a node contains itself."""
        found = self._known.get(id(node))
        if found is not None:
            return found
        if id(node) in self._open:
            raise self._refused(node, "an alias stands inside of what it names")
        self._open.add(id(node))
        inner = [self.of(child) for child in _children(node)]
        self._open.discard(id(node))
        nodes = 1 + sum(part[0] for part in inner)
        characters = sum(part[1] for part in inner) + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
        depth = 1 + max((part[2] for part in inner), default=0)
        if nodes > NODES_LIMIT or characters > CHARACTERS_LIMIT:
            raise self._refused(node, f"with its aliases it has more than {NODES_LIMIT:,} values, or {CHARACTERS_LIMIT:,} characters")
        if depth > DEPTH_LIMIT + 1:
            raise self._refused(node, f"with its aliases it is nested more than {DEPTH_LIMIT} deep")
        self._known[id(node)] = nodes, characters, depth
        return self._known[id(node)]

    def _refused(self, node: yaml.Node, words: str) -> ConfigError:
        return _syntax(self._path, node.start_mark.line + 1, words)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    return [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else []


def _syntax(path: str, line: int, words: str) -> ConfigError:
    return ConfigError("config.syntax", f"`{path}:{line}`: {words}.")
