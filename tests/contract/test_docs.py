"""What the pages say, against the code: tables, links, commands, examples, codes, and the tests that they name."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from dispatcher.answer import DOCS
from dispatcher.arguments import parser
from dispatcher.docs.blocks import STATES, blocks
from dispatcher.docs.pages import names_in, page_files, rewritten
from dispatcher.errors import CATALOGUE, EXITS, Exit
from dispatcher.policy import load_policy
from dispatcher.profile import ResolvedProfile, resolve_profile
from dispatcher.reading import load_document
from dispatcher.slurm import State
from dispatcher.spelling import RESERVED_SECTIONS
from dispatcher.trainconfig import RecipeConfig, compose

ROOT = Path(__file__).parents[2]
FILES = {str(file.relative_to(ROOT)): file.read_text() for file in page_files(ROOT)}
PAGES = pytest.mark.parametrize("page", sorted(FILES))
FENCE = re.compile(
    r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)(?P=ticks)\s*$", re.DOTALL | re.MULTILINE
)
SOURCES = sorted((ROOT / "dispatcher").rglob("*.py"))


def prose(text: str) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", text)


def spans(text: str) -> list[str]:
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(text))


def commands(text: str) -> Iterator[str]:
    """Everything that the page shows as something to type: code spans, and lines of fenced blocks."""
    yield from spans(text)
    for fence in FENCE.finditer(text):
        if fence["language"] in ("console", "sh", "bash", "yaml"):
            yield from (re.sub(r"^\s*(- )?(run: )?(\$ )?", "", line) for line in fence["body"].splitlines())


def anchors(text: str) -> set[str]:
    """The headings as GitHub names them."""
    found: set[str] = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#{1,6} +(.+?)\s*$", prose(text), re.MULTILINE):
        bare = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", bare).replace(" ", "-"))
    return found


# --------------------------------------------------------------------------- generated


@PAGES
def test_generated_parts_are_current(page: str) -> None:
    assert rewritten(FILES[page], blocks(ROOT), page) == FILES[page], "run `python -m dispatcher.docs`"


def test_every_generated_block_stands_on_some_page() -> None:
    assert {name for text in FILES.values() for name in names_in(text)} == set(blocks(ROOT))


def test_every_exit_status_and_every_state_is_explained() -> None:
    assert list(EXITS) == list(Exit)
    assert list(STATES) == list(State)
    assert {state for state, words in STATES.items() if words[0] == "**passes**"} == {State.SUCCEEDED}
    assert {state for state, words in STATES.items() if words[0] == "pending"} == {state for state in State if not state.ended}


def test_a_block_without_its_end_is_noticed() -> None:
    with pytest.raises(ValueError, match="pair up"):
        rewritten("<!-- generated: exits -->\n", blocks(ROOT))
    with pytest.raises(KeyError):
        rewritten("<!-- generated: nonsense -->\nold\n<!-- end -->\n", blocks(ROOT))


# --------------------------------------------------------------------------- links


@PAGES
def test_links_lead_somewhere(page: str) -> None:
    text = FILES[page]
    for target in re.findall(r"(?<!`)\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", prose(text)):
        address = unquote(target[0] or target[1])
        if address.startswith(DOCS):
            address = "/docs" + address.removeprefix(DOCS)
        if re.match(r"[a-z]+:", address):
            continue
        path, _, anchor = address.partition("#")
        file = ROOT / path.lstrip("/") if path.startswith("/") else (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page} links to {address}"
        if anchor:
            assert anchor in anchors(file.read_text()), f"{page} links to {address}"


def test_links_that_the_program_prints_lead_somewhere() -> None:
    for source in SOURCES:
        for name in re.findall(r"\{DOCS\}/([\w.-]+)|`docs/([\w./-]+\.md)`", source.read_text()):
            assert (ROOT / "docs" / (name[0] or name[1])).is_file(), f"{source.name} names docs/{name[0] or name[1]}"


@PAGES
def test_files_that_are_named_exist(page: str) -> None:
    for span in spans(FILES[page]):
        for path in re.findall(r"(?<![\w./-])((?:dispatcher|tests|docs|\.ci)/[\w./-]*\w)", span):
            assert (ROOT / path).exists() or list(ROOT.glob(path + ".*")), f"{page} names {path}"


# --------------------------------------------------------------------------- commands


@PAGES
def test_make_targets_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in commands(FILES[page]):
        for target in re.findall(r"^make ([a-z]+)", line):
            assert target in targets, f"{page}: {line}"


def options(command: argparse.ArgumentParser) -> set[str]:
    """The options of a command and of those below it."""
    below = [sub for action in command._actions if isinstance(action, argparse._SubParsersAction) for sub in action.choices.values()]
    return set(command._option_string_actions).union(*(sub._option_string_actions for sub in below))


@PAGES
def test_commands_exist(page: str) -> None:
    choices = next(action.choices for action in parser()._actions if action.dest == "command")
    assert choices is not None
    for line in commands(FILES[page]):
        if line.startswith("nemotron-dispatch ") and (words := shlex.split(line.split("#")[0])[1:])[:1] != ["--version"]:
            assert words[0] in choices or words[0] == "COMMAND", f"{page}: {line}"
            # COMMAND stands for any command: what all of them take.
            known = set.intersection(*(options(sub) for name, sub in choices.items() if words[0] in (name, "COMMAND")))
            assert {word for word in words if re.match(r"--?[a-z]", word)} <= known, f"{page}: {line}"
        for module in re.findall(r"^(?:\.venv/bin/)?python -m (dispatcher[\w.]*)", line):
            assert find_spec(module), f"{page}: {line}"


# --------------------------------------------------------------------------- examples


def examples(page: str) -> dict[str, str]:
    """The files that a page shows, by the path in their first line; a later block of the same path goes on with its own text."""
    found: dict[str, str] = {}
    for fence in FENCE.finditer(FILES[page]):
        if fence["language"] not in ("yaml", "toml"):
            continue
        body = re.sub(rf"^{fence['indent']}", "", fence["body"], flags=re.MULTILINE)
        named = re.match(r"# ([\w./-]+)", body)
        assert named, f"{page}: an example does not say in its first line which file it is:\n{body}"
        path, number = named[1], 2
        while path in found:
            path, number = f"{named[1]}#{number}", number + 1
        found[path] = body
    return found


@PAGES
def test_examples_can_be_used(page: str, tmp_path: Path) -> None:
    shown = examples(page)
    inputs = set(yaml.safe_load((ROOT / "action.yml").read_text())["inputs"])
    for path, text in shown.items():
        file = path.partition("#")[0]
        if file == ".github/dispatch.yml":
            load_policy(text)
        elif file.startswith("profiles/"):
            sources = {**{name: body for name, body in shown.items() if "#" not in name}, file: text}
            resolved = resolve_profile(Path(file).stem, sources, _variables(text), {})
            assert isinstance(resolved, ResolvedProfile), f"{page}: {path}"
        elif file == "env.toml":
            for section in set(load_document(text, file).value) - RESERVED_SECTIONS:
                assert isinstance(resolve_profile(section, {file: text}, _variables(text), {}), ResolvedProfile)
        elif file.startswith("configs/"):
            folder, _, name = file.rpartition("/")
            # The files that it names are not shown: empty ones will do.
            found = compose(RecipeConfig(dir=folder, default=name), "", (), lambda path, file=file, text=text: text if path == file else "")
            assert found.tree, f"{page}: {path}"
        else:
            assert file.startswith(".github/workflows/"), f"{page}: nobody checks {path}"
            written = tmp_path / Path(file).name
            written.write_text(text)
            schema = [str(Path(sys.executable).parent / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(written)]
            checked = subprocess.run(schema, capture_output=True, text=True)
            assert checked.returncode == 0, checked.stdout
            for job in yaml.safe_load(text)["jobs"].values():
                if "uses" in job:
                    assert set(job.get("with", {})) <= set(CALLED["inputs"]), f"{page}: {path}"
                    assert set(job.get("secrets", {})) <= set(CALLED["secrets"]), f"{page}: {path}"
            for step in _steps(yaml.safe_load(text)):
                if re.match(r"org/nemotron-dispatch(@|$)|\./$", step.get("uses", "")):
                    assert set(step.get("with", {})) <= inputs, f"{page}: {path}"


# YAML 1.1 reads the key `on` as true.
CALLED = yaml.safe_load((ROOT / ".github/workflows/dispatch.yml").read_text())[True]["workflow_call"]


def _variables(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"oc\.env:(\w+)", text))


def _steps(workflow: Any) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


def test_the_readme_shows_all_three_files() -> None:
    assert {".github/workflows/train.yml", "profiles/cluster.yaml", ".github/dispatch.yml"} <= set(examples("README.md"))


# --------------------------------------------------------------------------- codes and reasons

CODE = re.compile(r"(?:config|input|git|compile|ssh|cluster|cloud|github)\.[a-z]+(?:-[a-z]+)*")


def raised() -> dict[str, str]:
    """Every code that stands in the program as a text of its own, and where."""
    found: dict[str, str] = {}
    for source in SOURCES:
        if source.name == "errors.py":
            continue
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call | ast.Tuple | ast.Dict):
                parts = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else node.values
                for part in parts:
                    for leaf in [part.body, part.orelse] if isinstance(part, ast.IfExp) else [part]:
                        if isinstance(leaf, ast.Constant) and CODE.fullmatch(str(leaf.value)) and leaf.value != "cluster.sh":
                            found[leaf.value] = source.name
    program = (ROOT / "dispatcher/effects/cluster.sh").read_text()
    found |= dict.fromkeys(re.findall(r"(?:fail |code=)(cluster\.[a-z-]+)", program), "cluster.sh")
    return found


def test_every_code_is_in_the_catalogue() -> None:
    assert {code: where for code, where in raised().items() if code not in CATALOGUE} == {}


def test_every_code_of_the_catalogue_is_raised() -> None:
    assert set(CATALOGUE) - set(raised()) == set()


def test_every_family_has_its_table() -> None:
    for code in CATALOGUE:
        assert f"| `{code}` |" in FILES["docs/errors.md"]


def test_every_reason_is_explained() -> None:
    """The `reason-code` output: whatever the program can say there stands on the page about commands."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            name = getattr(getattr(node, "func", None), "id", "")
            at = {"refusal": 1, "answered": 0, "outcome": 1}.get(name)
            if at is None or not isinstance(node, ast.Call) or len(node.args) <= at:
                continue
            part = node.args[at]
            for leaf in [part.body, part.orelse] if isinstance(part, ast.IfExp) else [part]:
                if isinstance(leaf, ast.Constant):
                    assert f"`{leaf.value}`" in FILES["docs/commands.md"], f"{source.name}: {leaf.value}"


# --------------------------------------------------------------------------- the tests that are named


@PAGES
def test_tests_that_are_named_exist(page: str) -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", FILES[page]):
        file = ROOT / path
        assert file.is_file(), f"{page} names {path}"
        if name:
            names = {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
            assert name in names, f"{page} names {path}::{name}"


def test_every_threat_has_a_test() -> None:
    rows = re.findall(
        r"^\| (?!attack|---)(.+?) \|$", FILES["docs/security.md"].partition("## Attacks")[2].partition("\n## ")[0], re.MULTILINE
    )
    assert len(rows) > 10
    for row in rows:
        assert "`tests/" in row.rpartition(" | ")[2], row


def test_the_decisions_are_numbered_and_listed() -> None:
    records = sorted(path.name for path in (ROOT / "docs/decisions").glob("0*.md"))
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    for name in records:
        assert f"({name})" in FILES["docs/decisions/README.md"]
