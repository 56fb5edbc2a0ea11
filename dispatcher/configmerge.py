"""Plain tables, the lowest first × overrides → one table: OmegaConf merges, and evaluates nothing.

To OmegaConf every `${…}` is an opaque word here, because a table that is merged over one would have it evaluated, and `oc.env` reads the
runner's variables (https://github.com/omry/omegaconf/blob/v2.3.0/omegaconf/basecontainer.py, `_map_merge`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from dispatcher.bounded import measured
from dispatcher.errors import ConfigError
from dispatcher.grammar import Override
from dispatcher.untrusted import code

STEP = "Correct the configuration in the commit, or the override; `docs/profiles.md` says what is read."


class _Opaque:
    """Interpolations ↔ words that OmegaConf does not understand."""

    def __init__(self) -> None:
        self._written: dict[str, str] = {}

    def hide(self, value: Any) -> Any:
        """The same value with a word for every text that has an interpolation in it."""
        if isinstance(value, dict):
            return {key: self.hide(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.hide(item) for item in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        word = f"\ue000{len(self._written)}\ue000"
        self._written[word] = value
        return word

    def show(self, value: Any) -> Any:
        """The reverse."""
        if isinstance(value, dict):
            return {key: self.show(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.show(item) for item in value]
        return self._written.get(value, value) if isinstance(value, str) else value


def merged(layers: Sequence[tuple[str, dict[Any, Any]]]) -> dict[Any, Any]:
    """OmegaConf's merge: tables merge, everything else replaces."""
    if len(layers) == 1:
        return layers[0][1]
    from omegaconf import OmegaConf

    for number, (path, over) in enumerate(layers):
        for _, under in layers[:number]:
            _no_table_over_a_reference(under, over, path, ())
    opaque = _Opaque()
    whole = OmegaConf.merge(*(OmegaConf.create(opaque.hide(tree)) for _, tree in layers))
    return dict(opaque.show(OmegaConf.to_container(whole, resolve=False)))


def _no_table_over_a_reference(under: Any, over: Any, path: str, at: tuple[str, ...]) -> None:
    """OmegaConf would have to look up what the reference names before it can merge."""
    if not isinstance(over, dict):
        return
    if isinstance(under, str) and "${" in under:
        words = f"{code('.'.join(at))} is {code(under, 60)}, and a table cannot be merged with that: write the table out"
        raise ConfigError("config.invalid", f"`{path}`: {words}.", STEP)
    for key, value in over.items():
        if isinstance(under, dict) and key in under:
            _no_table_over_a_reference(under[key], value, path, (*at, str(key)))


def overridden(tree: dict[Any, Any], overrides: Sequence[Override]) -> tuple[dict[Any, Any], tuple[str, ...]]:
    """The tree with `a.b=c` set in it, and the keys that were not there before. A value is YAML, as in OmegaConf's dot lists."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not overrides:
        return tree, ()
    added = []
    opaque = _Opaque()
    conf = OmegaConf.create(opaque.hide(tree))
    for item in overrides:
        measured(item.value, item.key, table=False)
        parts = item.key.replace("[", ".").replace("]", "").split(".")
        for end in range(1, len(parts)):
            _no_table_over_a_reference(_at(tree, parts[:end]), {}, "overrides", tuple(parts[:end]))
        if _at(tree, parts) is _ABSENT:
            added.append(item.key)
        try:
            value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={item.value}"]), resolve=False)
            assert isinstance(value, dict)
            OmegaConf.update(conf, item.key, opaque.hide(value["value"]), merge=True, force_add=True)
        except (OmegaConfBaseException, yaml.YAMLError, ValueError, IndexError, TypeError, RecursionError) as error:
            words = code(str(error).splitlines()[0] if str(error) else type(error).__name__)
            raise ConfigError("config.invalid", f"{code(item.word)} cannot be set in the configuration: {words}.", STEP) from error
    return dict(opaque.show(OmegaConf.to_container(conf, resolve=False))), tuple(added)


_ABSENT = object()


def _at(tree: Any, parts: Sequence[str]) -> Any:
    """The value at a dotted key, or `_ABSENT`."""
    for part in parts:
        if isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        elif isinstance(tree, dict) and (part in tree or (part.isdigit() and int(part) in tree)):
            tree = tree[part] if part in tree else tree[int(part)]
        else:
            return _ABSENT
    return tree
