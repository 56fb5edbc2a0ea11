"""The text of a Python file → the NeMo-Run executors that it makes, as far as they stand there literally. Nothing of it is executed.

Statements are followed in their order: assignments, changes of lists and tables, functions of the file where they are called. What happens
under a condition or in a loop is not followed; it is noted at the value that it would change.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dispatcher.pyvalues import CLASSES, Caveat, Made, Open, Scope, Values, Variable, dotted, short

_DEEPEST = 5


@dataclass(frozen=True)
class Found:
    """What is a profile: one executor, or the components of a heterogeneous job."""

    name: str
    parts: tuple[Made, ...]


class UnreadableError(Exception):
    """The text is no Python; `line` is where."""

    def __init__(self, words: str, line: int) -> None:
        super().__init__(words)
        self.words, self.line = words, line


def executors_in(text: str) -> tuple[Found, ...]:
    """Every executor, in the order of their lines; names are unique. Raises `UnreadableError`."""
    try:
        tree = ast.parse(text)
        return _Reader().read(tree)
    except SyntaxError as error:
        raise UnreadableError(error.msg, error.lineno or 1) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise UnreadableError(str(error) or type(error).__name__, 1) from None


@dataclass(frozen=True)
class _Function:
    node: ast.FunctionDef


class _Reader:
    """Follows the statements of one file."""

    def __init__(self) -> None:
        self._values = Values(self._called)
        self._groups: dict[str, list[Made]] = {}
        self._uncalled: dict[str, ast.FunctionDef] = {}
        self._depth = 0
        # What was made under the condition that is being looked at: only that may be changed there.
        self._fresh: list[int] = []

    def read(self, tree: ast.Module) -> tuple[Found, ...]:
        """The whole file; functions that it does not call are looked at with their defaults."""
        scope: Scope = {}
        self._block(tree.body, scope, [])
        for name, function in list(self._uncalled.items()):
            if name in self._uncalled:
                self._enter(function, self._parameters(function, None, scope, []), scope)
        grouped = {id(made) for parts in self._groups.values() for made in parts}
        alone = [
            Found(made.name or str(CLASSES[made.kind]), (made,))
            for made in self._values.made
            if CLASSES[made.kind] and id(made) not in grouped
        ]
        found = [*alone, *(Found(name, tuple(parts)) for name, parts in self._groups.items())]
        found.sort(key=lambda one: one.parts[0].line)
        return tuple(Found(name, one.parts) for name, one in zip(uniquely([one.name for one in found]), found, strict=True))

    # ------------------------------------------------------------------ statements

    def _block(self, body: Sequence[ast.stmt], scope: Scope, returned: list[Any]) -> None:
        for statement in body:
            self._statement(statement, scope, returned)

    def _statement(self, node: ast.stmt, scope: Scope, returned: list[Any]) -> None:
        match node:
            case ast.FunctionDef(name=name):
                scope[name] = Variable(_Function(node))
                self._uncalled[name] = node
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value, scope)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, value, scope)
            case ast.AugAssign():
                self._augment(node, scope)
            case ast.Expr(value=value):
                if not self._changed(value, scope):
                    self._values.of(value, scope, [])
            case ast.Return(value=value):
                returned.append(self._values.of(value, scope, []) if value is not None else None)
            case ast.With(items=items, body=body):
                for item in items:
                    self._values.of(item.context_expr, scope, [])
                self._block(body, scope, returned)
            case ast.If(test=test, body=body) if _is_main(test):
                self._block(body, scope, returned)
            case ast.If(test=test, body=body, orelse=orelse):
                known = self._truth(test, scope)
                if known is None:
                    self._perhaps([body, orelse], scope, returned)
                else:
                    self._block(body if known else orelse, scope, returned)
            case ast.For(body=body, orelse=orelse) | ast.While(body=body, orelse=orelse):
                self._perhaps([body, orelse], scope, returned)
            case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=final):
                self._block(body, scope, returned)
                self._perhaps([handler.body for handler in handlers], scope, returned)
                self._block([*orelse, *final], scope, returned)

    def _truth(self, test: ast.expr, scope: Scope) -> bool | None:
        """Whether a condition holds, where it only asks whether something was given: `if mounts:`, `if mounts is not None:`."""
        match test:
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self._truth(operand, scope)
                return None if inner is None else not inner
            case ast.BoolOp(op=op, values=values):
                parts = [self._truth(value, scope) for value in values]
                decisive = isinstance(op, ast.Or)
                return decisive if decisive in parts else None if None in parts else not decisive
            case ast.Compare(left=left, ops=[ast.Is() | ast.IsNot() as comparison], comparators=[ast.Constant(value=None)]):
                caveats: list[Caveat] = []
                value = self._values.of(left, scope, caveats)
                return None if caveats or isinstance(value, Open) else (value is None) == isinstance(comparison, ast.Is)
            case ast.Name() | ast.Constant():
                caveats = []
                value = self._values.of(test, scope, caveats)
                asked = isinstance(value, str) and "${" in value
                return None if caveats or asked or isinstance(value, Open | Made) else bool(value)
        return None

    def _perhaps(self, branches: Sequence[Sequence[ast.stmt]], scope: Scope, returned: list[Any]) -> None:
        """Blocks that may run or not: what they make counts, what they change of before is only noted."""
        ends: list[Scope] = []
        first = len(self._values.made)
        self._fresh.append(first)
        for branch in branches:
            inner = dict(scope)
            inside: list[Any] = []
            self._block(branch, inner, inside)
            returned += [Open(branch[0].lineno, "it depends on a condition") for _ in inside]
            ends.append(inner)
        self._fresh.pop()
        for name in {name for end in ends for name in end}:
            new = [end[name] for end in ends if name in end and end[name] is not scope.get(name)]
            if not new:
                continue
            line = next((statement.lineno for branch in branches for statement in branch), 1)
            before = scope.get(name)
            if before is not None and not isinstance(before.value, Open):
                scope[name] = Variable(before.value, (*before.caveats, Caveat(line, f"`{name}` is changed under a condition")))
            elif len(new) == 1:
                scope[name] = new[0]
            else:
                scope[name] = Variable(Open(line, f"`{name}` depends on a condition"))

    def _assign(self, target: ast.expr, node: ast.expr, scope: Scope) -> None:
        caveats: list[Caveat] = []
        value = self._values.of(node, scope, caveats)
        match target:
            case ast.Name(id=name):
                scope[name] = Variable(value, tuple(caveats))
                self._name(name, value, node)
            case ast.Attribute(value=owner, attr=name):
                made = self._values.of(owner, scope, [])
                if isinstance(made, Made):
                    self._set(made, name, value, target.lineno, caveats)
            case ast.Subscript(value=owner, slice=key):
                self._into(owner, key, value, target.lineno, scope)
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                for element in elements:
                    if isinstance(element, ast.Name):
                        scope[element.id] = Variable(Open(node.lineno, f"`{short(node)}` is no literal"))

    def _name(self, name: str, value: Any, node: ast.expr) -> None:
        """An executor is called as the variable that it is assigned to; a list of several is a heterogeneous job."""
        if isinstance(value, Made) and (not value.name or isinstance(node, ast.Call)):
            value.name = name
        parts = value if isinstance(value, list) else []
        if len(parts) > 1 and all(isinstance(part, Made) and part.kind == "SlurmExecutor" for part in parts):
            self._groups[name] = parts

    def _set(self, made: Made, name: str, value: Any, line: int, caveats: list[Caveat]) -> None:
        if self._older(made):
            made.rest.append(Open(line, f"`{name}` is set under a condition"))
        else:
            made.set(name, value, line, caveats)

    def _older(self, made: Made) -> bool:
        """Whether it was made before the condition that is being looked at."""
        return bool(self._fresh) and any(made is one for one in self._values.made[: self._fresh[-1]])

    # ------------------------------------------------------------------ changes of lists and tables

    def _holder(self, node: ast.expr, scope: Scope, line: int) -> Any:
        """The list or table that a statement changes; under a condition nothing, after a note at whoever has it."""
        value = self._values.of(node, scope, [])
        if not self._fresh or not isinstance(value, list | dict):
            return value
        caveat = Caveat(line, f"`{short(node)}` is changed under a condition")
        if isinstance(node, ast.Name):
            scope[node.id] = Variable(value, (*scope[node.id].caveats, caveat))
        elif isinstance(node, ast.Attribute) and isinstance(owner := self._values.of(node.value, scope, []), Made):
            owner.caveats.setdefault(node.attr, []).append(caveat)
        return None

    def _into(self, owner: ast.expr, key: ast.expr, value: Any, line: int, scope: Scope) -> None:
        """`table["NAME"] = value`."""
        name = self._values.of(key, scope, [])
        table = self._holder(owner, scope, line)
        if isinstance(table, dict):
            table[name if isinstance(name, str) else short(key)] = value if isinstance(name, str) else Open(line, "its key is no literal")

    def _changed(self, node: ast.expr, scope: Scope) -> bool:
        """`list.append(…)`, `list.extend(…)`, `table.update(…)`; whether it was one of these."""
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("append", "extend", "update")):
            return False
        owner = self._values.of(node.func.value, scope, [])
        if not isinstance(owner, list | dict):
            return False
        holder = self._holder(node.func.value, scope, node.lineno)
        given = [self._values.of(argument, scope, []) for argument in node.args]
        if isinstance(holder, list) and given:
            whole = given[0] if isinstance(given[0], list) else [Open(node.lineno, f"`{short(node.args[0])}` is no literal")]
            holder.extend([given[0]] if node.func.attr == "append" else whole)
        elif isinstance(holder, dict):
            more = {keyword.arg: self._values.of(keyword.value, scope, []) for keyword in node.keywords if keyword.arg}
            first = given[0] if given else {}
            unknown = {} if isinstance(first, dict) else {short(node.args[0]): Open(node.lineno, f"`{short(node.args[0])}` is no literal")}
            holder.update({**(first if isinstance(first, dict) else unknown), **more})
        return True

    def _augment(self, node: ast.AugAssign, scope: Scope) -> None:
        """`a += b`, `a |= b`: lists and tables are changed where they are, everything else is assigned."""
        whole = ast.fix_missing_locations(ast.copy_location(ast.BinOp(node.target, node.op, node.value), node))
        before = self._values.of(node.target, scope, [])
        after = self._values.of(whole, scope, [])
        if self._fresh or type(before) is not type(after):
            self._assign(node.target, whole, scope)
        elif isinstance(before, list):
            before[:] = after
        elif isinstance(before, dict):
            before.update(after)
        else:
            self._assign(node.target, whole, scope)

    # ------------------------------------------------------------------ functions

    def _called(self, node: ast.Call, scope: Scope, caveats: list[Caveat]) -> Any:
        """What a function of the file returns for these arguments."""
        function = scope[dotted(node.func)].value
        if not isinstance(function, _Function) or self._depth >= _DEEPEST:
            return Open(node.lineno, f"`{short(node)}` is no literal")
        return self._enter(function.node, self._parameters(function.node, node, scope, caveats), scope)

    def _enter(self, function: ast.FunctionDef, given: Scope, scope: Scope) -> Any:
        self._uncalled.pop(function.name, None)
        first, returned = len(self._values.made), list[Any]()
        inner = {**scope, **given}
        self._depth += 1
        fresh, self._fresh = self._fresh, []
        self._block(function.body, inner, returned)
        self._fresh = fresh
        self._depth -= 1
        made = [one for one in self._values.made[first:] if CLASSES[one.kind]]
        for one in made:
            one.name = function.name if len(made) == 1 or not one.name else f"{function.name}-{one.name}"
        if len(returned) == 1:
            return returned[0]
        return Open(function.lineno, f"`{function.name}` returns {'one of several' if returned else 'nothing'}")

    def _parameters(self, function: ast.FunctionDef, call: ast.Call | None, scope: Scope, caveats: list[Caveat]) -> Scope:
        """Each parameter: what the call gives, else its default, else open."""
        arguments = function.args
        positional = [*arguments.posonlyargs, *arguments.args]
        behind = dict(zip([one.arg for one in positional][len(positional) - len(arguments.defaults) :], arguments.defaults, strict=True))
        behind |= {one.arg: value for one, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value is not None}
        found: Scope = {}
        for one in [*positional, *arguments.kwonlyargs]:
            open_words = f"`{one.arg}` is a parameter of `{function.name}`"
            found[one.arg] = Variable(Open(one.lineno, open_words))
            if one.arg in behind:
                found[one.arg] = Variable(self._values.of(behind[one.arg], scope, []))
                if call is None:
                    note = Caveat(one.lineno, f"the default of the parameter `{one.arg}`")
                    found[one.arg] = Variable(found[one.arg].value, (note,))
        if call is not None:
            for one, argument in zip(positional, call.args, strict=False):
                found[one.arg] = Variable(self._values.of(argument, scope, caveats))
            for keyword in call.keywords:
                if keyword.arg in found:
                    found[keyword.arg] = Variable(self._values.of(keyword.value, scope, caveats))
        return found


def _is_main(test: ast.expr) -> bool:
    """`__name__ == "__main__"`."""
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def uniquely(names: Sequence[str]) -> tuple[str, ...]:
    """Names that are there twice get a number."""
    found: list[str] = []
    for name in names:
        number = 1
        while (numbered := name if number == 1 else f"{name}-{number}") in found:
            number += 1
        found.append(numbered)
    return tuple(found)
