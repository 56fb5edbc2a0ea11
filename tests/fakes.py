"""Quick stand-ins at the ports of dispatcher/ports.py; the only place where tests have them.

Each keeps the promises of its port's docstring in memory and writes what is asked of it into one shared `Trace`, so that a test can
hold the whole story's effects, in their order, beside what it expects. `Fakes().world` is a `World` made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path

from dispatcher.answer import Voice
from dispatcher.authorise import Grant
from dispatcher.clouds import CLOUDS, CloudProfile
from dispatcher.errors import (
    CATALOGUE,
    CloudError,
    ClusterError,
    CompileError,
    ConfigError,
    DispatchError,
    Exit,
    ForgeError,
    GitError,
    SshError,
)
from dispatcher.event import CommentEvent
from dispatcher.grammar import Override
from dispatcher.jobplan import JobPlan
from dispatcher.plan import plan
from dispatcher.ports import (
    ActiveRun,
    AlreadySubmitted,
    AnySpec,
    Check,
    CheckRef,
    ClaimAnswer,
    Claimed,
    ClaimRequest,
    CommandOutput,
    Comment,
    Compiled,
    CompiledFile,
    FileEntry,
    GivenUp,
    Held,
    InProgress,
    JobView,
    Label,
    Launched,
    NothingSaved,
    NotLaunched,
    Package,
    Part,
    Probe,
    PullRequest,
    Reaction,
    Refused,
    RunFiles,
    Standing,
    Submission,
    Submitted,
    Sweep,
    Views,
)
from dispatcher.profile import Profile
from dispatcher.recipe import Recipe
from dispatcher.record import Resources, RunRecord, Target
from dispatcher.slurm import State, state_of
from dispatcher.world import Settings, World

REPOSITORY = "org/repo"
HEAD, BASE, OTHER = "a" * 40, "b" * 40, "c" * 40
NOON = datetime(2024, 5, 6, 14, 2, tzinfo=timezone.utc)

POLICY = """\
default_profile: cluster
forks: sha
recipes:
  default: { script: train.py }
  eval: { script: eval.py, launcher: torchrun }
schedules:
  - { name: nightly, cron: "0 3 * * *" }
  - { name: weekly, cron: "0 3 * * *", recipe: eval }
gate:
  required: [{ recipe: default, paths: ["*.py"] }]
watch: { profiles: [cluster] }
"""

PROFILE = """\
executor: slurm
account: ml
partition: batch
host: login.example.com
user: ci
remote_job_dir: /jobs
log_url: https://logs.example.com{path}?job={job_id}
"""


FAMILIES: Mapping[Exit, type[DispatchError]] = {
    Exit.GITHUB: ForgeError,
    Exit.CLUSTER: ClusterError,
    Exit.SSH: SshError,
    Exit.GIT: GitError,
    Exit.COMPILE: CompileError,
    Exit.CONFIG: ConfigError,
}


class FakeClock:
    """A `Clock` whose sleep takes no time but moves the clock; `slept` lists how long was asked for."""

    def __init__(self, start: datetime = NOON) -> None:
        self.time = start
        self.slept: list[float] = []

    def now(self) -> datetime:
        """The time that has been slept to."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Moves the clock."""
        self.slept.append(seconds)
        self.time += timedelta(seconds=seconds)


@dataclass
class Trace:
    """Everything that was asked of the fakes, in order; and what to do at one of the steps instead (`fail`) or just before it (`at`)."""

    steps: list[str] = field(default_factory=list)
    fail: dict[str, BaseException] = field(default_factory=dict)
    at: dict[str, Callable[[], object]] = field(default_factory=dict)

    def add(self, step: str, detail: object = "") -> None:
        """Notes a step; raises what the test has put there, before the step has any effect."""
        self.steps.append(f"{step} {detail}".strip())
        for name in (step, self.steps[-1]):
            if name in self.at:
                self.at.pop(name)()
            if name in self.fail:
                raise self.fail[name]

    def of(self, *beginnings: str) -> list[str]:
        """The steps that begin like one of these."""
        return [step for step in self.steps if step.startswith(beginnings)]


class FakeForge:
    """GitHub for one repository: pull request 7 by bob at `HEAD`, and alice who may write. Comments are as old as the clock says."""

    def __init__(self, trace: Trace, clock: FakeClock | None = None) -> None:
        self.trace = trace
        self.clock = clock or FakeClock()
        self.written: dict[int, datetime] = {}
        self.pulls = {7: PullRequest(7, "open", False, HEAD, "topic", REPOSITORY, "main", BASE, REPOSITORY, "bob")}
        self.roles: dict[str, str] = {"alice": "write"}
        self.teams: set[tuple[str, str, str]] = set()
        self.merge_bases: dict[tuple[str, str], str] = {}
        self.refs: dict[str, str] = {"main": BASE}
        self.changed: dict[int, tuple[str, ...]] = {7: ("train.py",)}
        self.comments: dict[int, Comment] = {}
        self.checks: dict[int, Check] = {}
        self.reactions: list[tuple[int, str]] = []
        self.texts: dict[tuple[str, str], str] = {}
        self.labels: dict[str, Label] = {}
        self._ids = count(1000)

    @property
    def requests(self) -> int:
        return len(self.trace.of("forge."))

    @property
    def bodies(self) -> list[str]:
        """Our comments' texts."""
        return [comment.body for comment in self.comments.values()]

    @property
    def of_runs(self) -> list[Check]:
        """Our checks but the gates'."""
        return [check for check in self.checks.values() if check.name != "dispatch/gate"]

    def check(self, name: str) -> Check:
        """The only check of that name."""
        [found] = [check for check in self.checks.values() if check.name == name]
        return found

    def pull(self, number: int) -> PullRequest | None:
        self.trace.add("forge.pull", number)
        return self.pulls.get(number)

    def role(self, login: str) -> str | None:
        self.trace.add("forge.role", login)
        return self.roles.get(login)

    def team_member(self, org: str, team: str, login: str) -> bool:
        self.trace.add("forge.team_member", f"{org}/{team} {login}")
        return (org, team, login) in self.teams

    def commit_sha(self, ref: str) -> str | None:
        self.trace.add("forge.commit_sha", ref)
        return self.refs.get(ref)

    def default_branch(self) -> str:
        self.trace.add("forge.default_branch")
        return "main"

    def merge_base(self, base: str, head: str) -> str | None:
        self.trace.add("forge.merge_base", f"{base}...{head[:7]}")
        return self.merge_bases.get((base, head))

    def read_text(self, path: str, ref: str) -> str | None:
        self.trace.add("forge.read_text", path)
        return self.texts.get((ref, path))

    def list_files(self, path: str, ref: str) -> tuple[str, ...]:
        raise NotImplementedError("the world reads the configuration")

    def changed_files(self, number: int) -> tuple[str, ...]:
        self.trace.add("forge.changed_files", number)
        return self.changed.get(number, ())

    def open_pulls_at(self, sha: str) -> tuple[PullRequest, ...]:
        self.trace.add("forge.open_pulls_at", sha[:7])
        return tuple(pull for pull in self.pulls.values() if pull.state == "open" and pull.head_sha == sha)

    def react(self, comment_id: int, content: Reaction) -> bool:
        self.trace.add("forge.react", content)
        new = (comment_id, content) not in self.reactions
        self.reactions.append((comment_id, content))
        return new

    def find_comment(self, number: int, marker: str, since: datetime | None = None) -> Comment | None:
        self.trace.add("forge.find_comment", number)
        found = [comment for comment in self.comments.values() if marker in comment.body.splitlines()]
        return next((comment for comment in found if since is None or self.written.get(comment.id, since) >= since), None)

    def create_comment(self, number: int, body: str, marker: str) -> Comment:
        self.trace.add("forge.create_comment", number)
        assert marker in body
        new_id = next(self._ids)
        new = Comment(new_id, f"https://github.com/{REPOSITORY}/pull/{number}#{new_id}", body)
        self.comments[new.id] = new
        self.written[new.id] = self.clock.now()
        return new

    def update_comment(self, comment_id: int, body: str) -> Comment | None:
        self.trace.add("forge.update_comment", comment_id)
        if comment_id not in self.comments:
            return None
        self.comments[comment_id] = replace(self.comments[comment_id], body=body)
        return self.comments[comment_id]

    def find_checks(self, sha: str, name: str | None = None) -> tuple[CheckRef, ...]:
        self.trace.add("forge.find_checks", name or "")
        found = [number for number, check in self.checks.items() if check.sha == sha and name in (None, check.name)]
        return tuple(self._ref(number) for number in sorted(found, reverse=True))

    def create_check(self, check: Check) -> CheckRef:
        self.trace.add("forge.create_check", f"{check.name} {check.conclusion or check.status}")
        number = next(self._ids)
        self.checks[number] = check
        return self._ref(number)

    def update_check(self, check_id: int, check: Check) -> CheckRef | None:
        self.trace.add("forge.update_check", f"{check.name} {check.conclusion or check.status}")
        if check_id not in self.checks:
            return None
        # GitHub adds annotations to those that are there.
        self.checks[check_id] = replace(check, annotations=self.checks[check_id].annotations + check.annotations)
        return self._ref(check_id)

    def add_label(self, number: int, label: str) -> None:
        self.trace.add("forge.add_label", label)
        had = self.pulls[number].labels
        self.pulls[number] = replace(self.pulls[number], labels=had if label in had else (*had, label))

    def remove_label(self, number: int, label: str) -> None:
        self.trace.add("forge.remove_label", label)
        if number in self.pulls:
            self.pulls[number] = replace(self.pulls[number], labels=tuple(one for one in self.pulls[number].labels if one != label))

    def create_label(self, label: Label) -> bool:
        self.trace.add("forge.create_label", label.name)
        new = label.name not in self.labels
        self.labels[label.name] = label
        return new

    def labelled(self, label: str) -> tuple[int, ...]:
        self.trace.add("forge.labelled", label)
        return tuple(sorted(number for number, pull in self.pulls.items() if label in pull.labels and pull.state == "open"))

    def _ref(self, number: int) -> CheckRef:
        check = self.checks[number]
        url = f"https://github.com/{REPOSITORY}/runs/{number}"
        return CheckRef(number, url, check.external_id, check.status, check.conclusion, check.name, check.text, len(check.annotations))


class FakeArchive:
    """Commits by SHA, each the files that it packs."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.commits: dict[str, tuple[FileEntry, ...]] = {HEAD: FILES, BASE: FILES, OTHER: FILES}
        self.texts: dict[str, str] = {}

    def describe(self, sha: str, spec: AnySpec) -> Package:
        self.trace.add("archive.describe", sha[:4])
        try:
            return package(self.commits[sha], sha)
        except KeyError:
            raise GitError("git.commit-missing", f"There is no commit {sha}.") from None

    def read_text(self, sha: str, path: str) -> str | None:
        self.trace.add("archive.read_text", path)
        return self.texts.get(path)

    def stream(self, package: Package, only: frozenset[str] | None = None) -> Iterator[bytes]:
        self.trace.add("archive.stream", "all" if only is None else ",".join(sorted(only)))
        yield from (entry.path.encode() for entry in package.files if only is None or entry.path in only)


class FakeCompiler:
    """Renders a script that says what it was asked for."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.jobs: list[Mapping[str, object]] = []

    def start(self) -> None:
        self.trace.add("compiler.start")

    def begin(self, job: Mapping[str, object]) -> None:
        """Nothing can be seen of it: what it comes to is said by `compile`."""

    def compile(self, job: Mapping[str, object]) -> Compiled:
        self.trace.add("compiler.compile")
        self.jobs.append(job)
        return Compiled(f"#!/bin/bash\n#SBATCH --job-name=dispatch-{job['run_key']}\n", (CompiledFile("configs/task.yaml", b"a: 1\n"),))

    def close(self) -> None:
        self.trace.add("compiler.close")


class FakeCloud:
    """An API that starts jobs: `jobs` has the word for each, by run key. `dies` names a verb and when it dies there, `before` or `after`.

    `refuses` are the words with which it refuses a job; `silent` says that it does not answer when it is looked at.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.jobs: dict[str, str] = {}
        self.started: list[tuple[str, bytes | None, Mapping[str, str]]] = []
        self.logs: dict[str, bytes] = {}
        self.forgotten: list[str] = []
        self.dies: tuple[str, str] | None = None
        self.refuses = self.silent = ""
        self.error: CloudError | None = None

    def _step(self, verb: str, when: str = "before") -> None:
        if self.dies == (verb, when):
            raise KeyboardInterrupt
        if when == "before":
            self.trace.add(f"cloud.{verb}")
            if self.error is not None:
                raise self.error

    def start(self) -> None:
        """Nothing takes long."""

    def render(self, job: Mapping[str, object]) -> Compiled:
        self._step("render")
        return Compiled(f"run {job['script']}\n", (CompiledFile("configs/request.yaml", b"kind: Job\n"),))

    def launch(self, job: Mapping[str, object], code: Path | None, environment: Mapping[str, str]) -> Launched | NotLaunched:
        self._step("launch")
        if self.refuses:
            return NotLaunched(self.refuses)
        key = str(job["run_key"])
        if key not in self.jobs:
            self.jobs[key] = "running"
            self.started.append((key, code.read_bytes() if code else None, environment))
        self._step("launch", "after")
        return Launched(f"job-{key}")

    def find(self, run_key: str) -> str | None:
        self._step("find")
        return f"job-{run_key}" if run_key in self.jobs else None

    def look(self, job_ids: Sequence[str]) -> Views:
        self.trace.add("cloud.look")
        known = [JobView(job_id, self.jobs[key]) for job_id in job_ids if (key := job_id.removeprefix("job-")) in self.jobs]
        return Views("docker", silent=self.silent) if self.silent else Views("docker", tuple(known))

    def log(self, job_id: str) -> bytes:
        self._step("log")
        return self.logs.get(job_id, b"")

    def cancel(self, job_id: str) -> str:
        self._step("cancel")
        self.jobs[job_id.removeprefix("job-")] = "exited"
        return ""

    def forget(self, job_id: str) -> None:
        self._step("forget")
        self.forgotten.append(job_id)
        self.logs.pop(job_id, None)

    def probe(self) -> tuple[tuple[str, int, str], ...]:
        self._step("probe")
        return (("engine", 0, "answers"),)

    def close(self) -> None:
        """Nothing was begun."""


@dataclass
class FakeRun:
    """A run's folder: without a job it is an interrupted submission."""

    record: str
    job_id: str = ""
    tags: tuple[str, ...] = ()
    log: bytes = b""
    part_logs: dict[Part, bytes] = field(default_factory=dict)
    results: dict[str, bytes] = field(default_factory=dict)
    submission: Submission | None = None
    sent: bytes = b""
    exit_file: str = ""
    left: str | None = None
    """Why it was given up."""
    saved: set[str] = field(default_factory=set)
    """Where the newest job has saved something."""


class FakeCluster:
    """One ledger and its scheduler. `scheduler` has Slurm's word for each job it knows; `answers` is off when nobody answers at all.

    `before_sweep` holds what happens between one look and the next: each sweep first does the first of them. `queue` has the keys that
    wait, in their order; `dropped` those that were taken out; `locked` says whether we have the admission lock, `lock_is_taken` that
    somebody else has it; `journal` has the usage lines of each month. Whoever reads a log from beyond `cut` meets its error.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.runs: dict[str, FakeRun] = {}
        self.active: dict[str, str] = {}
        self.queue: list[str] = []
        self.dropped: set[str] = set()
        self.locked = self.lock_is_taken = False
        self.journal: dict[str, list[str]] = {}
        self.remembered: dict[str, list[str]] = {}
        self.claims: dict[str, ClaimRequest] = {}
        self.packages: set[str] = set()
        self.base: tuple[str, tuple[FileEntry, ...]] | None = None
        self.scheduler: dict[str, str] = {}
        self.reason = "None"
        self.answers = True
        self.age = 60
        self.busy = False
        self.refuses = ""
        self.before_sweep: list[Callable[[], object]] = []
        self.before_claim: list[Callable[[], object]] = []
        self.probes: tuple[Probe, ...] = ()
        self.cut: tuple[int, BaseException] | None = None
        self.cancel_says = CommandOutput(0, "")
        self.estimate_says = CommandOutput(
            0, "", "sbatch: Job 7 to start at 2024-05-06T15:30:00 using 1 processors on nodes n1 in partition batch\n"
        )

    def claim(self, request: ClaimRequest) -> ClaimAnswer:
        self.trace.add("cluster.claim", request.package_group if request.package_group == "adopt" else "")
        if self.before_claim:
            self.before_claim.pop(0)()
        run = self.runs.get(request.run_key)
        if run and (run.job_id or request.run_key in self.queue or request.run_key in self.dropped):
            return AlreadySubmitted(run.job_id, run.record)
        if self.busy:
            return InProgress(12)
        self.claims[request.run_key] = request
        has = request.digest in self.packages
        base = None if has else self.base
        return Claimed(run is not None, has, base[1] if base else None, base[0] if base else None)

    def submit(self, submission: Submission) -> Submitted | Held | Refused:
        self.trace.add("cluster.submit", "hold" if submission.hold else "")
        claim = self.claims.pop(submission.run_key)
        sent = b"".join(submission.upload.chunks()) if submission.upload else b""
        if self.refuses and not submission.hold:
            self.runs.pop(submission.run_key, None)
            return Refused(self.refuses)
        number = 100 + len(self.runs)
        self.runs[submission.run_key] = FakeRun(submission.record, "", claim.tags, submission=submission, sent=sent)
        self.packages.add(claim.digest)
        if submission.hold:
            self.queue.append(submission.run_key)
            return Held()
        return self._enter(submission.run_key, number)

    def release(self, run_key: str) -> Submitted | Refused | None:
        self.trace.add("cluster.release", run_key[:4])
        if run_key not in self.queue:
            return None
        if self.refuses:
            return Refused(self.refuses)
        self.queue.remove(run_key)
        return self._enter(run_key, 100 + sum(run.job_id != "" for run in self.runs.values()))

    def _enter(self, run_key: str, number: int) -> Submitted:
        """The scheduler takes a run: with this number, or the next one that is free."""
        taken = {run.job_id for run in self.runs.values()}
        run = self.runs[run_key]
        run.job_id = next(str(free) for free in count(number) if str(free) not in taken)
        self.active[run_key] = ""
        self.scheduler[run.job_id] = "PENDING"
        if run.submission and run.submission.usage:
            self._note(run.submission.usage)
        return Submitted(run.job_id)

    def go_on(self, run_key: str, ended: str, saved: str) -> Submitted | Refused | NothingSaved | None:
        self.trace.add("cluster.go_on", f"{run_key[:4]} {ended}")
        run = self.runs[run_key]
        if self.busy:
            return None
        if run.job_id != ended:
            return Submitted(run.job_id)
        if saved not in run.saved:
            return NothingSaved()
        if self.refuses:
            return Refused(self.refuses)
        run.saved.clear()
        run.job_id = str(int(ended) + 1)
        self.scheduler[run.job_id], self.active[run_key] = "PENDING", "unreported"
        return Submitted(run.job_id)

    def drop(self, run_key: str) -> bool:
        self.trace.add("cluster.drop", run_key[:4])
        if run_key not in self.queue:
            return False
        self.queue.remove(run_key)
        self.dropped.add(run_key)
        self.active[run_key] = ""
        return True

    def lock(self) -> bool:
        self.trace.add("cluster.lock")
        self.locked = not self.lock_is_taken
        return self.locked

    def unlock(self) -> None:
        self.trace.add("cluster.unlock")
        self.locked = False

    def standing(self) -> Standing:
        self.trace.add("cluster.standing")
        active = tuple(self.runs[key].record for key in self.active if key in self.runs)
        return Standing(active, tuple(self.runs[key].record for key in self.queue))

    def usage(self, month: str) -> str:
        self.trace.add("cluster.usage", month)
        return "".join(f"{line}\n" for line in self.journal.get(month, []))

    def account(self, line: str) -> None:
        self.trace.add("cluster.account", " ".join(line.split()[:1]))
        self._note(line)

    def _note(self, line: str) -> None:
        self.journal.setdefault(line.partition(" ")[0], []).append(line)

    def adopt(self, run_key: str, other: str, record: str) -> str | None:
        self.trace.add("cluster.adopt", other[:4])
        if self.runs[other].left is not None:
            return None
        claim, run = self.claims.pop(run_key), self.runs[other]
        self.runs[run_key] = FakeRun(record, run.job_id, claim.tags, log=run.log, results=run.results)
        self.active[run_key] = ""
        return run.job_id

    def history(self, name: str) -> str:
        self.trace.add("cluster.history")
        return "".join(f"{line}\n" for line in self.remembered.get(name, []))

    def remember(self, name: str, line: str) -> None:
        self.trace.add("cluster.remember")
        self.remembered.setdefault(name, []).append(line)

    def abandon(self, run_key: str) -> None:
        self.trace.add("cluster.abandon")
        if self.claims.pop(run_key, None):
            self.runs.pop(run_key, None)

    def sweep(self) -> Sweep:
        if self.before_sweep:
            self.before_sweep.pop(0)()
        self.trace.add("cluster.sweep")
        self.active = {key: reported for key, reported in self.active.items() if key in self.runs}
        if not self.answers:
            down = CommandOutput(1, "", "slurm_load_jobs error: Unable to contact slurm controller")
            return Sweep(tuple(self._active()), 0, down, down, down, tuple(self.queue))
        active = {job: word for job, word in self.scheduler.items() if not state_of(word).ended}
        ended = {job: word for job, word in self.scheduler.items() if state_of(word).ended}
        queue = "".join(f"{job}|{word}|{self.reason}|N/A|dispatch|n1|1\n" for job, word in active.items())
        rows = "".join(f"{job}|{word}|{int(word == 'FAILED')}:0|1714996920|1714996980|60|n1|{self.reason}\n" for job, word in ended.items())
        return Sweep(tuple(self._active()), 0, CommandOutput(0, queue), CommandOutput(0, rows), CommandOutput(0, ""), tuple(self.queue))

    def _active(self) -> Iterator[ActiveRun]:
        for key, reported in self.active.items():
            run = self.runs[key]
            yield ActiveRun(key, run.job_id, reported, self.age, len(run.log), run.exit_file, alive=run.exit_file == "")

    def fetch(
        self, run_key: str, log_offset: int, log_cap: int, results_cap: int, results_path: str = "", part: Part | None = None
    ) -> RunFiles | None:
        self.trace.add("cluster.fetch", "batch" if part == "batch" else "")
        run = self.runs.get(run_key)
        if run is None:
            return None
        if self.cut is not None and log_offset > self.cut[0]:
            raise self.cut[1]
        log = run.log if part is None else run.part_logs.get(part, b"")
        size = len(log)
        offset = min(max(size + log_offset, 0) if log_offset < 0 else log_offset, size)
        results = run.results.get(results_path or "results.json")
        too_big = results is not None and len(results) > abs(results_cap)
        if results is not None and too_big:
            results = results[results_cap:] if results_cap < 0 else None
        return RunFiles(run.record, log[offset:][:log_cap], offset, size, results, too_big, given_up=run.left or "")

    def records(self, run_keys: Sequence[str]) -> tuple[str | None, ...]:
        if run_keys:
            self.trace.add("cluster.records", str(len(run_keys)))
        return tuple(self.runs[key].record if key in self.runs else None for key in run_keys)

    def find(self, tag: str) -> tuple[str, ...]:
        self.trace.add("cluster.find", tag.partition("-")[0])
        return tuple(run.record for run in self.runs.values() if tag in run.tags)

    def save(self, run_key: str, record: str, reported: str) -> None:
        self.trace.add("cluster.save", reported)
        if run_key not in self.runs:
            raise ClusterError("cluster.run-unknown", f"There is no run {run_key}.")
        self.runs[run_key].record = record
        if run_key in self.active:
            self.active[run_key] = reported

    def retire(self, run_key: str) -> None:
        self.trace.add("cluster.retire")
        self.active.pop(run_key, None)

    def cancel(self, run_key: str, why: str = "") -> GivenUp:
        run = self.runs[run_key]
        run.left = why if run.left is None else run.left
        others = [key for key in self.active if self.runs[key].job_id == run.job_id and self.runs[key].left is None]
        if others:
            return GivenUp(0, "", others=tuple(others))
        self.trace.add("cluster.cancel", run_key[:4])
        run.left = run.left if self.cancel_says.status == 0 else None
        return GivenUp(self.cancel_says.status, self.cancel_says.stdout, self.cancel_says.stderr)

    def probe(self, account: str, partition: str) -> tuple[Probe, ...]:
        self.trace.add("cluster.probe", f"{account} {partition}")
        return self.probes

    def estimate(self, script: str) -> CommandOutput:
        self.trace.add("cluster.estimate")
        return self.estimate_says

    def close(self) -> None:
        """The far side gives an unused claim back, and the admission lock."""
        self.trace.add("cluster.close")
        self.locked = False
        for key in list(self.claims):
            del self.claims[key]
            self.runs.pop(key, None)

    def add(
        self,
        record: RunRecord,
        reported: str | None = None,
        word: str = "",
        tags: tuple[str, ...] = (),
        log: bytes = b"",
        queued: bool = False,
    ) -> FakeRun:
        """A run that is there already: active when `reported` says what was last reported, known to the scheduler by `word`.

        With `queued` it waits behind all others, and has no job whatever its record says.
        """
        self.runs[record.run_key] = run = FakeRun(record.to_json(), "" if queued else record.job_id, tags, log)
        if queued:
            self.queue.append(record.run_key)
        if reported is not None:
            self.active[record.run_key] = reported
        if word:
            self.scheduler[record.job_id] = word
        return run


def asking_again(policy: str) -> str:
    """A policy under which the same may be asked for again and again, unless it says itself what is reused."""
    return policy if "reuse:" in policy else f"{policy.rstrip()}\nreuse: {{ runs: false }}\n"


class Fakes:
    """A world of fakes: what happened stands in `trace`, what was said in `said`, what was shown of logs in `shown`."""

    def __init__(self, policy: str = POLICY, profiles: Mapping[str, str] | None = None, forge: bool = True, **settings: object) -> None:
        self.trace = Trace()
        self.clock = FakeClock()
        self.forge = FakeForge(self.trace, self.clock)
        self.archive = FakeArchive(self.trace)
        self.compiler = FakeCompiler(self.trace)
        self.cluster = FakeCluster(self.trace)
        self.clusters: dict[str, FakeCluster] = {}
        self.folders: dict[str, FakeCluster] = {}
        self.said: list[str] = []
        self.shown = b""
        self.files = {".github/dispatch.yml": asking_again(policy)}
        self.files.update({f"profiles/{name}.yaml": text for name, text in (profiles or {"cluster": PROFILE}).items()})
        given = {"repository": REPOSITORY, "voice": Voice(at_terminal=not forge), "local_job_dir": "/state", **settings}
        self.world = World(
            forge=self.forge if forge else None,
            archive=lambda: self.archive,
            compiler=self.compiler,
            connect=self._connect,
            read_config=self.files.get,
            list_config=lambda folder: tuple(sorted(path.rsplit("/", 1)[1] for path in self.files if path.rsplit("/", 1)[0] == folder)),
            clock=self.clock,
            say=self.said.append,
            show_log=self._show,
            settings=Settings(**given),  # type: ignore[arg-type]
        )

    @property
    def steps(self) -> list[str]:
        """Everything that was asked of the ports, in order."""
        return self.trace.steps

    def fail(self, step: str, code: str = "github.unavailable") -> None:
        """From now on this step raises an error with this code, of its family's class."""
        self.trace.fail[step] = FAMILIES[CATALOGUE[code].exit](code, f"`{step}` broke.")

    def fail_with(self, step: str, error: BaseException) -> None:
        """From now on this step raises this very error."""
        self.trace.fail[step] = error

    def _connect(self, profile: Profile) -> FakeCluster:
        self.trace.add("connect")
        folder = self.folders.get(profile.job_dir or "")
        return folder or self.clusters.get(str(getattr(profile, "host", "")), self.cluster)

    def _show(self, data: bytes) -> None:
        self.shown += data


# --------------------------------------------------------------------------- values


def entry(path: str, blob: str = "1", size: int = 10) -> FileEntry:
    """A plain file."""
    return FileEntry(path, "100644", blob * 40, size)


FILES = (entry("eval.py"), entry("train.py"))


def package(files: tuple[FileEntry, ...] = FILES, sha: str = HEAD) -> Package:
    """What a commit packs; the digest follows from the files alone."""
    return Package(sha, "".join(f"{len(file.path):02x}{file.blob[:2]}" for file in files).ljust(64, "0")[:64], files)


def comment_event(body: str = "/train", author: str = "alice", **fields: object) -> CommentEvent:
    """Somebody comments on pull request 7."""
    event = CommentEvent(REPOSITORY, 7, True, "open", 99, body, author, False, "created", "2024-05-06T14:01:30Z", "", "main")
    return replace(event, **fields)  # type: ignore[arg-type]


def run_record(**fields: object) -> RunRecord:
    """A run of pull request 7 that waits in the queue as job 100."""
    given: dict[str, object] = {
        "run_key": "0123456789abcdef",
        "content_key": "c" * 64,
        "digest": "d" * 64,
        "target": Target(repository=REPOSITORY, pull=7, command_comment=99),
        "trigger": "comment:99",
        "actor": "alice",
        "sha": HEAD,
        "profile": "cluster",
        "recipe": "default",
        "program": "train.py",
        "executor": "slurm",
        "cluster": "ci@login.example.com",
        "run_dir": "/jobs/runs/0123456789abcdef",
        "results_path": "code/results.json",
        "resources": Resources(nodes=2, gpus_per_node=8, seconds=4 * 3600, partition="batch"),
        "asked_at": NOON,
        "job_id": "100",
        "state": State.PENDING,
    }
    return RunRecord.model_validate({**given, **fields})


def overrides(*words: str) -> tuple[Override, ...]:
    """`key=value` words."""
    return tuple(Override(*word.split("=", 1)) for word in words)


def cloud_plan(recipe: Recipe | None = None, executor: str = "docker", trigger: str = "comment:99", **fields: object) -> JobPlan:
    """A plan for an executor behind an API, from the fields of its profile; its run key is the trigger's."""
    given = {"container_image": "train:1", "tunnel": "local", "job_dir": "/jobs", **fields}
    return plan_on(CLOUDS[executor].model_validate(given), recipe, trigger)


def plan_on(profile: CloudProfile, recipe: Recipe | None = None, trigger: str = "comment:99") -> JobPlan:
    """The same from a profile."""
    grant = Grant("alice", HEAD, REPOSITORY, 7, "run", trigger, "comment", "allow.roles", profile.executor, "default")
    recipe = recipe or Recipe(script="train.py")
    return plan(grant, profile.executor, profile, "default", recipe, (), package(), f"/jobs/{profile.ledger_name}", False, "/py")
