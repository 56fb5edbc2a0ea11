"""The hostile corpus through every way in: GitHub over real HTTP, one real sshd, a real Slurm, and a policy that allows all it can.

What is legal runs as a job whose script writes down its arguments and its environment; legal arguments and variables travel many in one
command, and of what travels alone two inputs of five do (`tests/unit/test_hostile.py` has them all). Afterwards the tests look at what
is left: everything is done once, in the fixture `story`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from dispatcher.action import OUTPUTS, blank_outputs
from dispatcher.answer import DOCS, RUN_MARK, marker
from dispatcher.cli import plain
from dispatcher.configuration import read_policy
from dispatcher.effects.archive import GitArchive
from dispatcher.effects.assembly import for_github
from dispatcher.effects.compiler import CompilerProcess
from dispatcher.effects.runner import Runner
from dispatcher.errors import DispatchError, Exit
from dispatcher.event import parse_event
from dispatcher.flow import handle
from dispatcher.grammar import COMMANDS_LIMIT, LINE_LIMIT, Run
from dispatcher.inputs import read_inputs
from dispatcher.record import parse_record
from dispatcher.verbs import parse_line
from dispatcher.watching import watch
from dispatcher.world import Outcome, World
from tests.github_model import Comment, File, Pull
from tests.github_server import GitHubServer
from tests.hostile import ARGUMENTS, FAMILIES, POSITIONS, REASON, VARIABLE, Hostile, bare, corpus, some
from tests.powerless import acting
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import Stage, read_outputs

# The story alone takes a minute on an idle machine, and two where others work.
pytestmark = pytest.mark.timeout(600)
# The most that one delivery may take, and the most of the words of a command that are bundled (with room for the rest of the line).
SECONDS, WORDS = 20.0, LINE_LIMIT - 100
POLICY_FILE = ".github/dispatch.yml"
# Where the payload is the address of a submodule of the commit.
SUBMODULE = "submodule"

POLICY = """\
default_profile: cluster
forks: sha
overrides: { allow: ["*", "run.*"] }
noise: { outsiders: comment }
recipes:
  default: { script: train.py, entrypoint: python3, results: results.json }
  loud: { script: loud.py, entrypoint: python3, results: results.json }
gate:
  required: [{ profile: cluster, paths: ["*.py"] }]
  override: { allow: { roles: [write] } }
watch: { profiles: [cluster] }
"""
# What a policy of the corpus is completed with, so that what it leaves open can run.
REST = 'default_profile: cluster\noverrides: { allow: ["*", "run.*"] }\n'
DEFAULT = "recipes: { default: { script: train.py, entrypoint: python3 } }\n"

WRITES_DOWN = """\
import json, os, sys
json.dump({"argv": sys.argv[1:], "cwd": os.getcwd(), "environ": dict(os.environ)}, open("seen.json", "w"))
json.dump({"arguments": len(sys.argv) - 1}, open("results.json", "w"))
"""
# A job whose every word is an attack: on its log's readers, and on those of its results.
LOUD = """\
import json, sys
part = int(sys.argv[1].partition("=")[2])
payloads = json.load(open("payloads.json"))[part]
sys.stdout.buffer.write("\\n".join(payloads).encode() + b"\\n")
names = ["a@alice", "x @org/team", "http://evil.example", "org/repo", "a ::error::x", "1. x", "0 -- x"]
json.dump({f"v{number}": payload for number, payload in enumerate(payloads)} | dict.fromkeys(names, "@alice"), open("results.json", "w"))
sys.exit(3 * (part % 2))
"""


@dataclass(frozen=True)
class Told:
    """One delivery and all that was said because of it, except on GitHub."""

    items: tuple[Hostile, ...]
    outcome: Outcome
    trigger: str
    seconds: float
    log: str
    outputs: Mapping[str, str]

    @property
    def id(self) -> str:
        """Of its input, or of the first of many."""
        return self.items[0].id


@dataclass
class Story:
    """The stage, and what was done on it."""

    stage: Stage
    slurm: SlurmRig
    canary: Path
    compiler: KeptCompiler
    told: list[Told] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    swept: str = ""
    before: dict[str, frozenset[str]] = field(default_factory=dict)
    after: dict[str, frozenset[str]] = field(default_factory=dict)
    pulls: dict[str, Pull] = field(default_factory=dict)

    @cached_property
    def archive(self) -> GitArchive:
        """One for all deliveries: what is fetched once need not be fetched again."""
        return GitArchive(f"{self.stage.server.url}/org/repo", self.stage.server.token)

    def world(self, log: Runner, branch: str = "main", run_id: str = "101") -> World:
        """The world of a process: everything in it is real."""
        made = for_github(read_inputs(self.stage.environment(GITHUB_RUN_ID=run_id)), log, branch)
        return replace(made, compiler=self.compiler, archive=lambda: self.archive)

    def pull(self, position: str) -> Pull:
        """A pull request for each position, or every answer would have to be looked for among a thousand."""
        if position not in self.pulls:
            if position == SUBMODULE:
                self.stage.repo.commit(SUBMODULE, {"x": "x"}, base="feature")
            branch = SUBMODULE if position == SUBMODULE else "feature"
            self.pulls[position] = self.stage.repo.open_pull(branch, author="alice", title=position)
        return self.pulls[position]

    def deliver(self, item: Hostile) -> None:
        """One input by its way in."""
        repo, main = self.stage.repo, self.stage.repo.sha("main")
        if item.position == SUBMODULE:
            modules = f'[submodule "x"]\n\tpath = sub\n\turl = {item.payload}\n'.encode("utf-8", "replace")
            self.pull(SUBMODULE).push({".gitmodules": modules, "sub": File("160000", "1" * 40)})
        if item.place.policy:
            repo.commit("main", {POLICY_FILE: item.text + "\n" + REST + ("" if "recipes:" in item.text else DEFAULT)})
        self.hand_over((item,), item.place.event, item.put_into(self.event(item)))
        repo.set_branch("main", main)

    def event(self, item: Hostile) -> dict[str, Any]:
        """The payload that GitHub would send, but for the one field."""
        server, pull = self.stage.server, self.pull(item.position)
        if item.place.event == "issue_comment":
            body = item.text if item.place.field == ("comment", "body") else "/train plan"
            return deepcopy(server.comment_event(pull, writable(pull, body)))
        if item.place.event == "pull_request_target":
            return deepcopy(server.labeled_event(pull, "train:cluster"))
        if item.place.event == "workflow_dispatch":
            return deepcopy(server.workflow_dispatch_event(self.stage.repo, {"dry-run": "true"}))
        if item.place.event == "schedule":
            return deepcopy(server.schedule_event(self.stage.repo))
        if item.place.event == "merge_group":
            return deepcopy(server.merge_group_event(pull))
        if item.place.event == "pull_request":
            return deepcopy(server.pull_request_event(pull, "synchronize"))
        return bare(item.place.event, head=pull.head_sha)

    def command(self, items: tuple[Hostile, ...], words: str) -> None:
        """A comment of many inputs' words."""
        pull = self.pull("bundles")
        self.hand_over(items, "issue_comment", self.stage.server.comment_event(pull, pull.comment(words)))

    def hand_over(self, items: tuple[Hostile, ...], name: str, payload: dict[str, Any]) -> None:
        """One event, told as the command line tells it. Whatever is raised without a code is a crash."""
        files = {name: self.stage.folder / f"told-{name}" for name in ("output", "summary")}
        for file in files.values():
            file.write_text("")
        log, trigger, began = io.StringIO(), "", time.monotonic()
        runner = Runner(str(files["output"]), str(files["summary"]), in_actions=True)
        try:
            with contextlib.redirect_stderr(log):
                try:
                    event = parse_event(name, json.loads(json.dumps(payload)), str(len(self.told)))
                    trigger = getattr(event, "trigger", "")
                    ended = handle(event, self.world(runner, getattr(event, "default_branch", ""), str(len(self.told))))
                except DispatchError as error:
                    ended = Outcome(error.exit, blank_outputs("refused", error.code), error.cause)
                runner.outputs(ended.outputs)
                runner.summary(ended.summary)
                runner.error(ended.outputs["reason-code"], plain(ended.summary))
        except Exception as crash:
            self.crashes.append(f"{items[0].id}: {type(crash).__name__} {crash} on {items[0].text[:200]!r}")
            ended = Outcome(Exit.BUG, blank_outputs("refused", "bug"))
        self.told.append(Told(items, ended, trigger, time.monotonic() - began, log.getvalue(), read_outputs(files["output"])))

    def sweep(self) -> str:
        """One sweep; what it logged."""
        log = io.StringIO()
        with contextlib.redirect_stderr(log):
            world = self.world(Runner(None, None, in_actions=True))
            watch(world, read_policy(world))
        return log.getvalue()

    @property
    def jobs(self) -> dict[str, Told]:
        """Run key → the delivery that started it."""
        return {one.outcome.outputs["run-key"]: one for one in self.told if one.outcome.outputs["job-id"]}

    @property
    def waiting(self) -> set[str]:
        """Our jobs that have not ended."""
        return set(self.slurm.run("squeue", "-h", "-o", "%k").split()) & self.runs

    @property
    def runs(self) -> set[str]:
        """Run keys of all that was submitted: a list in a command, and the gate of a queue, may have started several."""
        return set(os.listdir(self.stage.job_dir / "runs"))

    def seen(self, run_key: str) -> dict[str, Any]:
        """What a job's script wrote down."""
        file = self.stage.job_dir / "runs" / run_key / "code" / "seen.json"
        found: dict[str, Any] = json.loads(file.read_bytes())
        return found

    @property
    def comments(self) -> list[Comment]:
        """Ours."""
        return [one for one in self.stage.repo.comments.values() if one.author == "github-actions[bot]"]


class KeptCompiler(CompilerProcess):
    """NeMo-Run is imported once for all deliveries: each would do so in a process of its own."""

    def close(self) -> None:
        """Not yet."""

    def end(self) -> None:
        """Now."""
        super().close()


def writable(pull: Pull, body: str) -> Comment:
    """A comment as GitHub takes it: at most 65,536 characters, none of them half a character."""
    return pull.comment(body.encode("utf-8", "replace").decode()[:65_536] or " ")


# --------------------------------------------------------------------------- the story


@pytest.fixture(scope="module")
def server() -> Iterator[GitHubServer]:
    with GitHubServer() as server:
        server.remaining = 1_000_000
        yield server


@pytest.fixture(scope="module")
def story(server: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Everything, once."""
    canary = tmp_path_factory.mktemp("c")
    items = corpus(str(canary))
    stage = Stage(server, cluster_sshd, tmp_path_factory.mktemp("hostile"), policy=POLICY)
    commit = {
        "train.py": WRITES_DOWN,
        "loud.py": LOUD,
        "payloads.json": payloads_file(canary),
        **hostile_names(canary),
        **stand_ins(canary),
    }
    for branch in ("main", "feature"):
        stage.repo.commit(branch, commit)
    stage.repo.add_collaborator("alice", "admin")
    told = Story(stage, slurm, canary, KeptCompiler())
    told.before = surroundings(stage, canary)
    try:
        alone, together = apart(items)
        for bundle in together:
            told.command(bundle, "/train " + " ".join(item.words for item in bundle))
        for part in range(PARTS):
            told.command(items[:1], f"/train recipe=loud part={part}")
        for item in some(alone):
            told.deliver(item)
        deadline = time.monotonic() + 60
        while told.waiting and time.monotonic() < deadline:
            time.sleep(0.2)
        told.swept = told.sweep()
        told.after = surroundings(stage, canary)
        yield told
    finally:
        told.compiler.end()


def apart(items: Sequence[Hostile]) -> tuple[list[Hostile], list[tuple[Hostile, ...]]]:
    """Inputs that are delivered alone, and bundles of those that one command can carry."""
    alone: list[Hostile] = []
    bundles: list[list[Hostile]] = [[]]
    for item in items:
        if not carried(item):
            alone.append(item)
            continue
        if len(bundles[-1]) == 60 or sum(len(one.words) + 1 for one in (*bundles[-1], item)) > WORDS:
            bundles.append([])
        bundles[-1].append(item)
    return alone, [tuple(bundle) for bundle in bundles]


def carried(item: Hostile) -> bool:
    """Whether the input is one legal override, exactly as it was written."""
    if item.position not in (*ARGUMENTS, VARIABLE) or len(item.words) > WORDS:
        return False
    command = parse_line(" " + item.words)
    return isinstance(command, Run) and [override.value for override in command.overrides] == [item.payload]


def acting_payloads(canary: Path) -> list[str]:
    """What could act where a log or a result is shown, one line each."""
    chosen = [payload for family in ("markdown", "percent", "control", "shell", "right-to-left") for payload in FAMILIES[family]]
    return [" ".join(payload.replace("CANARY", f"{canary}/0").replace("TOUCH", f"touch {canary}/0").splitlines()) for payload in chosen]


PARTS = 6


def payloads_file(canary: Path) -> str:
    return json.dumps([acting_payloads(canary)[part::PARTS] for part in range(PARTS)])


def hostile_names(canary: Path) -> dict[str, str]:
    """Files whose names are payloads, as far as a name can be one."""
    names = {payload.replace("CANARY", "x").replace("TOUCH", "touch x") for payloads in FAMILIES.values() for payload in payloads}
    return {f"names/{name}": "x\n" for name in sorted(names, key=ascii) if is_name(name)}


def stand_ins(canary: Path) -> dict[str, str]:
    """Modules that a runner would import by mistake if it looked into the commit, and filters that git would run if it checked it out."""
    code = f"open({str(canary / 'imported')!r}, 'w')\n"
    modules = ("sitecustomize.py", "usercustomize.py", "dispatcher/__init__.py", "nemo_run/__init__.py", "paramiko/__init__.py")
    return {**dict.fromkeys(modules, code), ".gitattributes": "* filter=lfs diff=x merge=x text export-subst\n", ".lfsconfig": "[lfs]\n"}


def is_name(name: str) -> bool:
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 0 < length <= 200 and not {"/", "\0"} & set(name) and name not in (".", "..") and name.lower() != ".git"


def surroundings(stage: Stage, canary: Path) -> dict[str, frozenset[str]]:
    """What is where nothing of a hostile input belongs: names, and of the shared /tmp only what tells of our canary."""
    homes = stage.sshd.folder / "home"
    places = {place: frozenset(os.listdir(place)) for place in ("/", "/etc", "/var/tmp", str(Path.home()), str(canary))}
    places["homes"] = frozenset(str(path) for path in homes.rglob("*"))
    ours = (path for path in stage.folder.iterdir() if path != stage.job_dir and not path.name.startswith("told-"))
    places["beside job_dir"] = frozenset(path.name for path in ours)
    places["/tmp"] = frozenset(path.name for path in Path("/tmp").iterdir() if tells_of(path, str(canary)))
    return places


def tells_of(path: Path, canary: str) -> bool:
    """Whether a file is named after or written by one of our payloads."""
    if canary in path.name or path.name in {"x", "EOF", "passwd"}:
        return True
    with contextlib.suppress(OSError):
        return path.is_file() and not path.is_symlink() and path.stat().st_size < 10_000 and canary.encode() in path.read_bytes()
    return False


# --------------------------------------------------------------------------- what is left


def test_the_canary_would_sing(tmp_path: Path) -> None:
    """The same payloads, given to a shell that does not quote: what the other tests look for can be found."""
    for item in corpus(str(tmp_path)):
        if item.family == "shell" and item.position == "argument" and "touch" in item.payload and is_name(item.payload.replace("/", "")):
            subprocess.run(["bash", "-c", f"echo {item.payload}"], capture_output=True, cwd=tmp_path, timeout=10)
    assert len([name for name in os.listdir(tmp_path) if name.isdigit()]) >= 5


def test_nothing_was_executed(story: Story) -> None:
    assert os.listdir(story.canary) == []


def test_nothing_was_written_outside(story: Story) -> None:
    assert {place: story.after[place] - names for place, names in story.before.items() if story.after[place] != names} == {}
    job_dir = story.stage.job_dir
    assert {path.name for path in job_dir.iterdir()} <= {"packages", "runs", "active", "tags", "queue", "usage", "history", "tmp", "locks"}
    assert story.runs >= set(story.jobs)
    triggers = tuple(one.trigger for one in story.told if one.trigger)
    for key in story.runs:
        assert re.fullmatch(r"[0-9a-f]{16}", key)
        assert parse_record((job_dir / "runs" / key / "record.json").read_text()).trigger.startswith(triggers), key
    packages = [path.name for path in (job_dir / "packages").iterdir()]
    assert [name for name in packages if not re.fullmatch(r"groups|[0-9a-f]{64}\.[a-z.]+", name)] == []
    assert os.listdir(job_dir / "tmp") == []


def test_a_run_has_in_its_folder_what_it_should_and_no_more(story: Story) -> None:
    known = re.compile(
        r"record\.json|job\.sbatch|env|configs|code|logs|job|started|exit|answer|listed|words|tags|usage|(?:claim|commit|turn)\.[\w.-]+"
    )
    for key in story.runs:
        names = [path.name for path in (story.stage.job_dir / "runs" / key).iterdir()]
        assert [name for name in names if not known.fullmatch(name)] == [], key


def test_every_input_was_answered_with_a_reason_in_time(story: Story) -> None:
    assert story.crashes == []
    inputs = {item.id for one in story.told for item in one.items}
    assert len(inputs) > 900
    assert {item.position for one in story.told for item in one.items} == set(POSITIONS)
    for one in story.told:
        assert set(one.outputs) == set(OUTPUTS), one.id
        assert one.outputs["decision"], one.id
        assert REASON.fullmatch(one.outputs["reason-code"]), (one.id, one.outputs)
        assert one.seconds < SECONDS, (one.id, one.seconds)


def test_what_was_answered_stands_in_a_comment(story: Story) -> None:
    for one in story.told:
        place = one.items[0].place
        if place.field == ("comment", "body") and one.outputs["decision"] != "ignored" and one.outputs["reason-code"] != "input.event":
            assert one.outputs["comment-url"], (one.id, one.outcome)


def test_arguments_and_variables_arrive_byte_for_byte(story: Story) -> None:
    arrived = 0
    for key, one in story.jobs.items():
        if len(one.items) < 2:
            continue
        seen = story.seen(key)
        assert seen["argv"] == [f"k{item.number}={item.payload}" for item in one.items if item.position in ARGUMENTS], one.id
        for item in one.items:
            if item.position == VARIABLE:
                assert seen["environ"][f"K{item.number}"] == item.payload, item.id
        assert seen["cwd"] == str(story.stage.job_dir / "runs" / key / "code")
        arrived += len(one.items)
    assert arrived > 200


def test_names_of_files_arrive_byte_for_byte(story: Story) -> None:
    names = {name.removeprefix("names/") for name in hostile_names(story.canary)}
    assert len(names) > 150
    key = next(key for key, one in story.jobs.items() if len(one.items) > 1)
    assert set(os.listdir(story.stage.job_dir / "runs" / key / "code" / "names")) == names


def test_nothing_that_was_written_on_github_acts(story: Story) -> None:
    lines = (f":{number}" for number in range(2, COMMANDS_LIMIT + 1))
    marks = {marker(one.trigger + line) for line in ("", *lines) for one in story.told}
    own = marks | {f"{RUN_MARK}{key} -->" for key in story.runs}
    links = (DOCS, f"{story.stage.server.url}/", "https://ondemand.example.com/files/")
    assert len(story.comments) > 300
    for comment in story.comments:
        assert acting(comment.body, own, links) == [], comment.body
        assert len([line for line in comment.body.splitlines() if line in marks]) == 1, comment.body
    for check in story.stage.repo.checks.values():
        for words in (check.summary or "", check.text or ""):
            assert acting(words, (), links) == [], words
    assert story.stage.server.violations == []


def test_no_log_has_a_workflow_command_of_somebody_else(story: Story) -> None:
    assert not [line for line in story.swept.splitlines() if line.lstrip().startswith("::") or "##[" in line]
    for one in story.told:
        commands = [line for line in one.log.splitlines() if line.lstrip().startswith("::") or "##[" in line]
        assert [line for line in commands if not re.match(r"::error title=[a-z0-9._-]+::", line)] == [], one.id
        assert len(commands) <= 1, one.log


def test_what_jobs_said_was_shown(story: Story) -> None:
    """A log and results full of attacks: they are there to be read."""
    shown = "".join(comment.body for comment in story.comments).replace("\u200b", "")
    assert "::set-output name=x::y" in shown
    assert "@org/team" in shown
