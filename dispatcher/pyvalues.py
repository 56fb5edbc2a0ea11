"""An expression of Python, parsed → its value as far as it is literal, or why it is not. Nothing is executed, imported or looked up.

Known are literals, names that were given such values, f-strings, a few operators and calls (`os.environ`, `os.path.join`, `dict`, …), and
constructors of executors and what belongs to them. Texts come out as a profile has them: a variable of the environment is
`${oc.env:NAME}`, and what looks like one is escaped.
"""

from __future__ import annotations

import ast
import copy
import operator
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Classes of NeMo-Run → the name that a profile has for the executor; None for what is part of one.
# https://github.com/NVIDIA-NeMo/Run/blob/v0.11.1/nemo_run/__init__.py
CLASSES: Mapping[str, str | None] = {
    "SlurmExecutor": "slurm",
    "LocalExecutor": "local",
    "DockerExecutor": "docker",
    "SkypilotExecutor": "skypilot",
    "SkypilotJobsExecutor": "skypilot-jobs",
    "DGXCloudExecutor": "dgxcloud",
    "LeptonExecutor": "lepton",
    "KubeflowExecutor": "kubeflow",
    "KubeRayExecutor": "kuberay",
    **dict.fromkeys(("SSHTunnel", "LocalTunnel", "Packager", "GitArchivePackager", "PatternPackager", "HybridPackager")),
    **dict.fromkeys(("Torchrun", "FaultTolerance", "SlurmRay", "SlurmTemplate", "SlurmJobDetails")),
}
LONGEST = 100_000


@dataclass(frozen=True)
class Open:
    """What cannot be taken: the words go on after “… is not taken: ”."""

    line: int
    words: str


@dataclass(frozen=True)
class Caveat:
    """Something that may change a value, and was not followed."""

    line: int
    words: str


class WorkingFolder:
    """`os.getcwd()`: the folder in which a person starts the program, which is the repository's."""


@dataclass(eq=False)
class Made:
    """A constructor's call, and what was assigned to its fields later; `lines` says where each stands."""

    kind: str
    line: int
    name: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    caveats: dict[str, list[Caveat]] = field(default_factory=dict)
    rest: list[Open] = field(default_factory=list)

    def set(self, name: str, value: Any, line: int, caveats: list[Caveat]) -> None:
        """One field; a later one takes its place."""
        self.fields[name], self.lines[name], self.caveats[name] = value, line, caveats

    def cloned(self, line: int) -> Made:
        """`executor.clone()`."""
        made = copy.deepcopy(self)
        made.line, made.name = line, ""
        return made


@dataclass(frozen=True)
class Variable:
    """What a name stands for, and what might change it."""

    value: Any
    caveats: tuple[Caveat, ...] = ()


Scope = dict[str, Variable]
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.BitOr: operator.or_,
}


def dotted(node: ast.expr) -> str:
    """`run.SlurmExecutor`, `os.environ.get`; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def short(node: ast.AST) -> str:
    """The code of a node on one line, for people."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else text[:57] + "…"


def asked(name: str, default: Any = None) -> str:
    """A variable of the environment, as a profile asks for it; a default with anything special in it stands in quotes."""
    if default is None:
        return f"${{oc.env:{name}}}"
    if re.fullmatch(r"[A-Za-z0-9_./:@+-]+", str(default)):
        return f"${{oc.env:{name},{default}}}"
    quoted = str(default).replace("\\", "\\\\").replace("'", "\\'")
    return f"${{oc.env:{name},'{quoted}'}}"


class Values:
    """Evaluates expressions; `called` is asked about calls of functions that stand in the file."""

    def __init__(self, called: Callable[[ast.Call, Scope, list[Caveat]], Any]) -> None:
        self._called = called
        self.made: list[Made] = []

    def of(self, node: ast.expr, scope: Scope, caveats: list[Caveat]) -> Any:
        """The value, or `Open`. What the value depends on and was not followed is added to `caveats`."""
        match node:
            case ast.Constant(value=str(text)):
                return text.replace("${", "\\${") if len(text) <= LONGEST else Open(node.lineno, "it is too long")
            case ast.Constant(value=bool() | int() | float() | None as value):
                return value
            case ast.Name(id=name):
                return self._named(name, node.lineno, scope, caveats)
            case ast.List() | ast.Tuple() | ast.Set():
                return self._list(node.elts, scope, caveats)
            case ast.Dict():
                return self._table(node, scope, caveats)
            case ast.JoinedStr():
                return self._joined(node, scope, caveats)
            case ast.BinOp():
                return self._binary(node, scope, caveats)
            case ast.BoolOp(op=ast.Or()):
                return self._first(node, scope, caveats)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.Attribute():
                owner = self.of(node.value, scope, caveats)
                return owner.fields[node.attr] if isinstance(owner, Made) and node.attr in owner.fields else self._unknown(node)
            case ast.Subscript():
                return self._item(node, scope, caveats)
            case ast.Call():
                return self._call(node, scope, caveats)
        return self._unknown(node)

    def _unknown(self, node: ast.expr) -> Open:
        return Open(node.lineno, f"`{short(node)}` is no literal")

    def _named(self, name: str, line: int, scope: Scope, caveats: list[Caveat]) -> Any:
        variable = scope.get(name)
        if variable is None:
            return Open(line, f"`{name}` is not set in this file")
        caveats.extend(variable.caveats)
        return variable.value

    def _list(self, nodes: list[ast.expr], scope: Scope, caveats: list[Caveat]) -> Any:
        found: list[Any] = []
        for node in nodes:
            value = self.of(node.value if isinstance(node, ast.Starred) else node, scope, caveats)
            if isinstance(node, ast.Starred):
                found.extend(value if isinstance(value, list) else [Open(node.lineno, f"`{short(node)}` is no literal")])
            else:
                found.append(value)
        return found

    def _table(self, node: ast.Dict, scope: Scope, caveats: list[Caveat]) -> Any:
        table: dict[str, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            given = self.of(value, scope, caveats)
            if key is None:
                more = given if isinstance(given, dict) else None
                table.update(more if more is not None else {f"**{short(value)}": Open(value.lineno, f"`{short(value)}` is no literal")})
                continue
            name = self.of(key, scope, caveats)
            table[name if isinstance(name, str) else short(key)] = given if isinstance(name, str) else self._unknown(key)
        return table

    def _joined(self, node: ast.JoinedStr, scope: Scope, caveats: list[Caveat]) -> Any:
        parts: list[str] = []
        for part in node.values:
            plain = isinstance(part, ast.Constant) or (
                isinstance(part, ast.FormattedValue) and part.format_spec is None and part.conversion < 0
            )
            value = self.of(part.value if isinstance(part, ast.FormattedValue) else part, scope, caveats) if plain else None
            if not isinstance(value, str | int | float):
                return value if isinstance(value, Open) else self._unknown(node)
            parts.append(str(value))
        return "".join(parts)

    def _binary(self, node: ast.BinOp, scope: Scope, caveats: list[Caveat]) -> Any:
        left, right = self.of(node.left, scope, caveats), self.of(node.right, scope, caveats)
        known = _OPERATORS.get(type(node.op))
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        alike = type(left) is type(right) and isinstance(left, (dict if isinstance(node.op, ast.BitOr) else str | list))
        if known is None or not (numbers or (alike and isinstance(node.op, ast.Add | ast.BitOr))):
            return next((side for side in (left, right) if isinstance(side, Open)), self._unknown(node))
        if not numbers and len(left) + len(right) > LONGEST:
            return Open(node.lineno, "it is too long")
        try:
            return known(left, right)
        except (ArithmeticError, TypeError):
            return self._unknown(node)

    def _first(self, node: ast.BoolOp, scope: Scope, caveats: list[Caveat]) -> Any:
        """`given or "default"`."""
        for part in node.values:
            value = self.of(part, scope, caveats)
            if isinstance(value, Open) or value:
                return value
        return value

    def _item(self, node: ast.Subscript, scope: Scope, caveats: list[Caveat]) -> Any:
        key = self.of(node.slice, scope, caveats)
        if dotted(node.value) == "os.environ" and isinstance(key, str):
            return asked(key)
        owner = self.of(node.value, scope, caveats)
        if isinstance(owner, dict) and isinstance(key, str) and key in owner:
            return owner[key]
        return self._unknown(node)

    # ------------------------------------------------------------------ calls

    def _call(self, node: ast.Call, scope: Scope, caveats: list[Caveat]) -> Any:
        name = dotted(node.func)
        last = name.rpartition(".")[2]
        if last in ("Config", "Partial") and node.args and dotted(node.args[0]).rpartition(".")[2] in CLASSES:
            return self._construct(dotted(node.args[0]).rpartition(".")[2], node, node.args[1:], scope)
        if last in CLASSES and last not in scope:
            return self._construct(last, node, node.args, scope)
        if name in scope:
            return self._called(node, scope, caveats)
        if name in ("os.environ.get", "os.getenv"):
            given = [self.of(argument, scope, caveats) for argument in node.args]
            if given and all(isinstance(item, str | int) for item in given):
                return asked(str(given[0]), given[1] if len(given) > 1 else None)
        if name in ("os.getcwd", "Path.cwd", "pathlib.Path.cwd"):
            return WorkingFolder()
        copied = self._copied(node, name, scope, caveats)
        return copied if copied is not None else self._plain(node, name, scope, caveats)

    def _construct(self, kind: str, node: ast.Call, positional: list[ast.expr], scope: Scope) -> Made:
        made = Made(kind, node.lineno)
        # All of them take keywords only.
        made.rest += [Open(argument.lineno, f"`{short(argument)}` has no name") for argument in positional]
        self._keywords(made, node.keywords, scope)
        self.made.append(made)
        return made

    def _keywords(self, made: Made, keywords: list[ast.keyword], scope: Scope) -> None:
        for keyword in keywords:
            caveats: list[Caveat] = []
            value = self.of(keyword.value, scope, caveats)
            if keyword.arg is not None:
                made.set(keyword.arg, value, keyword.value.lineno, caveats)
            elif isinstance(value, dict):
                for name, item in value.items():
                    made.set(name, item, keyword.value.lineno, caveats)
            else:
                made.rest.append(Open(keyword.value.lineno, f"`**{short(keyword.value)}` is no literal"))

    def _copied(self, node: ast.Call, name: str, scope: Scope, caveats: list[Caveat]) -> Made | None:
        """`executor.clone()`, `copy.deepcopy(executor)`, `dataclasses.replace(executor, nodes=2)`."""
        if isinstance(node.func, ast.Attribute) and node.func.attr == "clone" and not node.args:
            original = self.of(node.func.value, scope, caveats)
        elif name.rpartition(".")[2] in ("deepcopy", "copy", "replace") and len(node.args) == 1:
            original = self.of(node.args[0], scope, caveats)
        else:
            return None
        if not isinstance(original, Made):
            return None
        made = original.cloned(node.lineno)
        self._keywords(made, node.keywords, scope)
        self.made.append(made)
        return made

    def _plain(self, node: ast.Call, name: str, scope: Scope, caveats: list[Caveat]) -> Any:
        """A few functions whose result is known; of others the arguments are still looked through, for executors."""
        given = [self.of(argument, scope, caveats) for argument in node.args]
        named = {keyword.arg or "**": self.of(keyword.value, scope, caveats) for keyword in node.keywords}
        if name in ("os.path.join", "posixpath.join") and given and all(isinstance(item, str) for item in given) and not named:
            return posixpath.join(*given)
        if name in ("str", "Path", "pathlib.Path", "os.path.expandvars") and len(given) == 1 and isinstance(given[0], str | int):
            return str(given[0])
        if name == "dict" and "**" not in named and all(isinstance(item, dict) for item in given):
            return {**(given[0] if given else {}), **named}
        if name in ("list", "tuple") and len(given) == 1 and isinstance(given[0], list):
            return list(given[0])
        return self._unknown(node)
