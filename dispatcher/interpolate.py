"""`${oc.env:NAME}` and `${oc.env:NAME,default}` in a document → the runner's values, for names that the policy lists and no others.

The notation and its grammar are OmegaConf's (https://omegaconf.readthedocs.io/en/latest/custom_resolvers.html#oc-env); of its
resolvers only this one is there, because the others read files, decode and follow references. `\\${` is a `${` that stays.
One difference is intended: an empty variable counts as unset, because GitHub gives empty text for a variable that does not exist.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from dispatcher.document import Document, Loc, refuse
from dispatcher.errors import ConfigError
from dispatcher.untrusted import code


def interpolate(document: Document, allowed: Collection[str], env: Mapping[str, str]) -> Document:
    """The document with every text resolved; keys are left alone.

    Raises `ConfigError`: `config.invalid` for any other `${…}`, `config.env-not-listed`, `config.env-unset`.
    """

    def walk(value: Any, loc: Loc) -> Any:
        if isinstance(value, dict):
            return {key: walk(item, (*loc, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*loc, index)) for index, item in enumerate(value)]
        return _resolved(value, loc) if isinstance(value, str) and "${" in value else value

    def _resolved(text: str, loc: Loc) -> str:
        # Imported here: it takes 0.1 s, and most profiles have nothing to resolve.
        from omegaconf.errors import GrammarParseError
        from omegaconf.grammar_parser import parse
        from omegaconf.grammar_visitor import GrammarVisitor

        def env_value(name: str, args: tuple[Any, ...], args_str: tuple[str, ...]) -> str:
            if name != "oc.env" or not 1 <= len(args) <= 2 or not isinstance(args[0], str):
                raise _other(document, loc)
            return _value(args[0], str(args[1]) if len(args) == 2 else None, loc)

        def reference(key: Any, memo: Any) -> NoReturn:
            raise _other(document, loc)

        try:
            return str(GrammarVisitor(reference, env_value, None).visit(parse(text)))
        except GrammarParseError:
            raise _other(document, loc) from None

    def _value(name: str, default: str | None, loc: Loc) -> str:
        place = document.place(loc)
        if name not in allowed:
            step = "Add the name to `env:` in `.github/dispatch.yml`, or to `secrets:` when it is one."
            raise ConfigError("config.env-not-listed", f"`{place}`: {code(name)} is not listed under `env:` in the policy.", step)
        found = env.get(name, "")
        if found:
            return found
        if default is None:
            raise ConfigError("config.env-unset", f"`{place}`: {code(name)} is not set on the runner, and there is no default.")
        return default

    return Document(document.path, {key: walk(item, (key,)) for key, item in document.value.items()}, document.places)


def _other(document: Document, loc: Loc) -> ConfigError:
    words = "only `${oc.env:NAME}` and `${oc.env:NAME,default}` are resolved; write `\\${` for a `${` that the shell should see"
    return refuse(document, [(loc, f"{code('.'.join(map(str, loc)))}: {words}")])
