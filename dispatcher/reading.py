"""YAML or TOML text from a repository → a `Document`: plain values that remember their lines.

Numbers other than plain whole numbers stay as they were written (`1e-4`, `04:00:00`, `12.10`): what they mean is for their key to say.
"""

from __future__ import annotations

import re
from functools import lru_cache

import yaml

from dispatcher.document import DEPTH_LIMIT, SIZE_LIMIT, Document, Loc, Place, Value, unreadable
from dispatcher.errors import ConfigError
from dispatcher.tomltext import toml_document
from dispatcher.untrusted import code


# One delivery comes to its policy and its profiles several times, and reading YAML is the slowest thing that it does by itself.
@lru_cache(maxsize=32)
def load_document(text: str, path: str) -> Document:
    """The text of `….toml` (TOML 1.0) or anything else (YAML) → the document. An empty text is an empty table.

    Raises `ConfigError` `config.syntax` for what cannot be parsed, and for what is refused: duplicate keys, tags, anchors, several
    documents, keys that are no text, more than 256 KiB. The same text is read once: nobody changes a document.
    """
    if len(text) > SIZE_LIMIT:
        raise ConfigError("config.syntax", f"`{path}` has {len(text):,} characters; {SIZE_LIMIT:,} are the limit.")
    return toml_document(text, path) if path.endswith(".toml") else _load_yaml(text, path)


class _Loader(yaml.SafeLoader):
    """Scanner and parser only; values are built by `_plain`."""


# The core of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema), so that `on`, `yes`, `4:00:00` and `0010` stay text.
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE, _FALSE = frozenset({"true", "True", "TRUE"}), frozenset({"false", "False", "FALSE"})
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")


def _load_yaml(text: str, path: str) -> Document:
    places: dict[Loc, Place] = {}
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            _refuse_exotic(event, depth, path)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        # What is never closed is found out at the end of the file; where it begins is the line to look at.
        unclosed = "<stream end>" in (error.problem or "") or "end of stream" in (error.problem or "")
        mark = (error.context_mark if unclosed else None) or error.problem_mark or error.context_mark
        words = " ".join(part for part in (error.context, error.problem) if part)
        raise unreadable(path, mark.line + 1 if mark else 1, words) from error
    except yaml.YAMLError as error:
        raise unreadable(path, 1, "contains a character that YAML does not allow") from error
    finally:
        if loader is not None:
            loader.dispose()
    if node is None:
        return Document(path, {}, {(): Place(path, 1)})
    value = _plain(node, (), path, places)
    if not isinstance(value, dict):
        if value is not None:
            raise unreadable(path, node.start_mark.line + 1, "the file must be a table of `key: value`")
        value = {}
    places[()] = Place(path, 1)
    return Document(path, value, places)


def _refuse_exotic(event: yaml.Event, depth: int, path: str) -> None:
    """Anchors can grow a small file without bounds, depth can exhaust the stack, tags name types; none is needed here."""
    line = event.start_mark.line + 1 if event.start_mark else 1
    if getattr(event, "anchor", None):
        raise unreadable(path, line, "anchors (`&…`, `*…`) are not used here")
    if getattr(event, "tag", None):
        raise unreadable(path, line, "tags (`!…`) are not used here")
    if depth > DEPTH_LIMIT:
        raise unreadable(path, line, f"nested more than {DEPTH_LIMIT} deep")


def _plain(node: yaml.Node, loc: Loc, path: str, places: dict[Loc, Place]) -> Value:
    """A node → its plain value; notes the line of every key and item."""
    line = node.start_mark.line + 1
    places.setdefault(loc, Place(path, line))
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*loc, index), path, places) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        table: dict[str, Value] = {}
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise unreadable(path, key_line, "a key must be text")
            key = str(key_node.value)
            here = (*loc, key)
            if key in table:
                raise unreadable(path, key_line, f"the key {code(key)} stands there twice (first in line {places[here].line})")
            places[here] = Place(path, key_line)
            table[key] = _plain(value_node, here, path, places)
        return table
    written = str(node.value)
    if getattr(node, "style", None) is not None:  # quoted, or a block of text
        return written
    if written in _NULL:
        return None
    if written in _TRUE or written in _FALSE:
        return written in _TRUE
    return int(written) if _WHOLE.fullmatch(written) else written
