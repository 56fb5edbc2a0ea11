"""`${oc.env:NAME}` and `${oc.env:NAME,default}` in a document → the runner's values, for names that the policy lists and no others.

OmegaConf's notation (https://omegaconf.readthedocs.io/en/latest/custom_resolvers.html#oc-env), and of its resolvers only this one: the
others read files, decode and follow references. `\\${` stands for a `${` that is meant as it is.
One difference is intended: an empty variable counts as unset, because GitHub gives empty text for a variable that does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from dispatcher.document import Document, Loc, refuse
from dispatcher.errors import ConfigError
from dispatcher.untrusted import code

_OPENING = re.compile(r"(\\*)\$\{")
_ENV = re.compile(r"\$\{\s*oc\.env\s*:\s*([A-Za-z_][A-Za-z0-9_]*)\s*(?:,\s*('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^'\"${}]*?)\s*)?\}")


def interpolate(document: Document, allowed: Collection[str], env: Mapping[str, str]) -> Document:
    """The document with every text resolved; keys are left alone.

    Raises `ConfigError`: `config.invalid` for any other `${…}`, `config.env-not-listed`, `config.env-unset`.
    """

    def walk(value: Any, loc: Loc) -> Any:
        if isinstance(value, dict):
            return {key: walk(item, (*loc, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*loc, index)) for index, item in enumerate(value)]
        return _text(value, loc) if isinstance(value, str) and "${" in value else value

    def _text(text: str, loc: Loc) -> str:
        parts, end = [], 0
        while found := _OPENING.search(text, end):
            slashes = len(found[1])
            parts.append(text[end : found.start()] + "\\" * (slashes // 2))
            if slashes % 2:
                parts.append("${")
                end = found.end()
                continue
            reference = _ENV.match(text, found.end() - 2)
            if not reference:
                words = "only `${oc.env:NAME}` and `${oc.env:NAME,default}` are resolved; write `\\${` for a `${` that the shell should see"
                raise refuse(document, [(loc, f"{code('.'.join(map(str, loc)))}: {words}")])
            parts.append(_value(reference[1], reference[2], loc))
            end = reference.end()
        return "".join([*parts, text[end:]])

    def _value(name: str, default: str | None, loc: Loc) -> str:
        place = document.place(loc)
        if name not in allowed:
            raise ConfigError("config.env-not-listed", f"`{place}`: {code(name)} is not listed under `env:` in the policy.")
        found = env.get(name, "")
        if found:
            return found
        if default is None:
            raise ConfigError("config.env-unset", f"`{place}`: {code(name)} is not set on the runner, and there is no default.")
        return re.sub(r"\\(.)", r"\1", default[1:-1]) if default[:1] in ("'", '"') else default

    return Document(document.path, {key: walk(item, (key,)) for key, item in document.value.items()}, document.places)
