"""Why runs fail: every log that was kept, what a log may not pretend, tracebacks as lines of the commit, and the words for all of it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dispatcher.answer import Voice
from dispatcher.causes import CAUSES, Kind, blames_machine
from dispatcher.coderoots import code_roots
from dispatcher.configuration import read_policy
from dispatcher.diagnosing import EXPLAIN_READ, explained
from dispatcher.diagnosis import End, diagnose
from dispatcher.errors import ClusterError
from dispatcher.failure import Failure, Place
from dispatcher.failurereport import line_annotations
from dispatcher.headline import headline
from dispatcher.observe import TAIL_READ, look, sights_of
from dispatcher.ports import AnySpec, Choice, HybridSpec, NothingSpec, PackageSpec, PatternSpec
from dispatcher.record import CodeRoot, RunRecord, parse_record
from dispatcher.report import run_report
from dispatcher.running import runs_table
from dispatcher.slurm import State
from dispatcher.telling import report
from dispatcher.traceback_lines import in_package, lines_of, tracebacks
from dispatcher.traceback_parts import Frame
from tests.failure_logs import CASES, FOLDER, Case, confusion
from tests.fakes import HEAD, NOON, Fakes, run_record

DOCS = Path(__file__).parents[2] / "docs" / "failures.md"
RAN = {"started_at": NOON, "ended_at": NOON + timedelta(minutes=3, seconds=12)}
GRACE = timedelta(minutes=10)
ROOTS = ("/jobs/runs/0123456789abcdef/code", "/nemo_run/code")
TRAIN = "line\n" * 60


def case(name: str) -> Case:
    """One of the kept logs."""
    [found] = [one for one in CASES if one.name == name]
    return found


def failed(log: str, *, texts: dict[str, str] | None = None, **fields: object) -> RunRecord:
    """A run that ended with exit code 1 and this log, after it was looked at; `texts` are the commit's files."""
    fakes = Fakes()
    fakes.forge.texts = {(HEAD, path): text for path, text in ({"train.py": TRAIN} if texts is None else texts).items()}
    record = run_record(state=State.FAILED, exit_code=1, evidence="sacct", **RAN, **fields)
    return explained(record, log, fakes.world)


# --------------------------------------------------------------------------- the kept logs


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_what_a_log_says(one: Case) -> None:
    failure = one.diagnosed().failure
    assert (failure.cause, failure.kind) == (one.cause, one.kind), failure.evidence
    assert len(failure.evidence) <= 300
    assert "\x1b" not in failure.evidence
    assert Failure.model_validate_json(failure.model_dump_json()) == failure


def test_every_log_is_in_the_table_and_every_class_has_some() -> None:
    assert {file.stem for file in FOLDER.glob("*.log")} == {one.name for one in CASES}
    assert len(CASES) == len({one.name for one in CASES}) >= 60
    assert {one.kind for one in CASES} == set(Kind)


def test_the_page_has_the_confusion_table() -> None:
    [told] = re.findall(r"<!-- begin confusion -->\n(.*?)\n<!-- end confusion -->", DOCS.read_text(), re.DOTALL)
    assert told == confusion(), f"docs/failures.md should say:\n{confusion()}"


@pytest.mark.parametrize(
    ("name", "evidence"),
    [
        ("code-value-error", "ValueError: Expected input batch_size (32) to match target batch_size (31)."),
        ("code-key-error-chained", "RuntimeError: checkpoint has no vocabulary"),
        ("code-torchrun-rank3", "RuntimeError: mat1 and mat2 shapes cannot be multiplied (32x512 and 256x512)"),
        ("code-syntax-error", "SyntaxError: expected ':'"),
        ("code-dataloader-worker", "ValueError: bad shard 12"),
        ("launcher-execve", "slurmstepd: error: execve(): python: No such file or directory"),
        ("host-torchrun-sigkill", "traceback : Signal 9 (SIGKILL) received by PID 2190"),
        ("timeout", "slurmstepd: error: *** JOB 12345 ON n1 CANCELLED AT 2026-11-30T18:02:11 DUE TO TIME LIMIT ***"),
        ("cancelled", "sacct: cancelled (cancelled by user id 1017)"),
        ("sigterm-143", "exit code 143"),
        ("unexplained-exit-1", ""),
    ],
)  # fmt: skip
def test_the_evidence(name: str, evidence: str) -> None:
    assert case(name).diagnosed().failure.evidence == evidence


def test_the_rank_is_the_one_that_the_line_names() -> None:
    assert case("gpu-oom").diagnosed().failure.rank == 3
    assert case("code-srun-label").diagnosed().failure.rank == 1
    assert case("code-value-error").diagnosed().failure.rank is None


def test_no_log_of_a_programs_own_failure_is_run_again() -> None:
    """A retry costs GPU-hours, and hides what is wrong: only what is certain to be the machine's gets one."""
    for case in CASES:
        if case.name.startswith(("code-", "attack-", "import-", "unexplained-")):
            assert not blames_machine(case.diagnosed().failure.cause), case.name


HARMLESS = (
    "/etc/profile.d/modules.sh: line 12: module: command not found",
    "sh: 1: getcap: not found",
    "bash: /opt/conda/etc/profile.d/conda.sh: No such file or directory",
    "[W socket.cpp:697] [c10d] The client socket has failed to connect to [n1]:29500 (errno: 97 - x).",
    "n1:1:2 [0] NCCL WARN Connect to 10.0.0.1<1234> failed, retrying",
    "n1:1:2 [0] NCCL WARN Error while creating shared memory segment /dev/shm/nccl-x (size 1), falling back",
    "HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded with url: /x (Caused by NameResolutionError('x'))",
    "WARNING: could not write cache: [Errno 122] Disk quota exceeded",
    "UserWarning: CUDA initialization: Unexpected error from cudaGetDeviceCount",
    "wandb: Network error (ConnectionError), entering retry loop.",
    "[rank0]:[W101 10:00:00 ProcessGroupNCCL.cpp:1250] Warning: WARNING: process group has NOT been destroyed",
    "srun: Job 12 step creation temporarily disabled, retrying (Requested nodes are busy)",
    "step 1 loss 2.3",
)
SURVIVED = (
    """Exception ignored in: <function Loader.__del__ at 0x7f>
Traceback (most recent call last):
  File "/usr/lib/python3.12/site-packages/loader.py", line 5, in __del__
OSError: [Errno 5] Input/output error""",
    """Traceback (most recent call last):
  File "/usr/lib/python3.12/site-packages/wandb/sdk/lib/retry.py", line 10, in __call__
    result = self._call_fn()
requests.exceptions.HTTPError: 503 Server Error: Service Unavailable for url: https://api.wandb.ai
going on offline""",
    """Exception in thread Thread-3:
Traceback (most recent call last):
  File "/usr/lib/python3.12/threading.py", line 1073, in _bootstrap_inner
    self.run()
OSError: [Errno 116] Stale file handle
the monitor is off""",
)
OWN = (
    """Traceback (most recent call last):
  File "/nemo_run/code/train.py", line 41, in <module>
    main()
KeyError: 'tokens'""",
    """Traceback (most recent call last):
  File "/nemo_run/code/train.py", line 41, in <module>
    main()
RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x3 and 4x3)""",
    "evaluation accuracy 0.1 below the threshold, exiting",
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from((*HARMLESS, *SURVIVED)), max_size=8),
    st.sampled_from(OWN),
    st.lists(st.sampled_from((SURVIVED[0], *HARMLESS[8:12])), max_size=3),
)
def test_what_stands_around_a_programs_failure_never_makes_it_the_machines(before: list[str], own: str, after: list[str]) -> None:
    log = "\n".join([*before, own, *after])
    found = diagnose(End(State.FAILED, exit_code=1, reason="NonZeroExitCode"), log)
    assert found is not None
    assert not blames_machine(found.failure.cause), log
    if own.startswith("Traceback") and "KeyError" in own:
        assert found.failure.error == "KeyError", log


MACHINES = {
    "preempted", "evicted", "node-failed", "node-failed-step", "not-started", "scheduler-failure", "gpu-fault", "gpu-runtime",
    "name-resolution", "file-system", "service",
}  # fmt: skip


def test_what_is_run_again_is_what_only_the_machine_can_have_done() -> None:
    assert {name for name in CAUSES if blames_machine(name)} == MACHINES
    for case in CASES:
        if case.cause not in MACHINES:
            assert not blames_machine(case.diagnosed().failure.cause), case.name


def printed(text: str) -> str:
    return f'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n{text}\n'


MACHINES_OWN = (
    "OSError: [Errno 5] Input/output error: '/lustre/x'",
    "OSError: [Errno 116] Stale file handle: '/lustre/x'",
    "huggingface_hub.errors.HfHubHTTPError: 503 Server Error: Service Unavailable for url: https://huggingface.co/x",
    "socket.gaierror: [Errno -3] Temporary failure in name resolution",
    "RuntimeError: CUDA error: uncorrectable ECC error encountered",
)


@pytest.mark.parametrize("text", MACHINES_OWN)
def test_the_machine_is_to_blame_only_if_nothing_speaks_against_it(text: str) -> None:
    log = f"step 1 loss 2.3\n{printed(text)}"
    for noise in ("", SURVIVED[0] + "\n", "wandb: Find logs at: ./wandb\n", "srun: error: n1: task 0: Exited with exit code 1\n"):
        found = diagnose(End(State.FAILED, 1), log + noise)
        assert found is not None
        assert blames_machine(found.failure.cause), noise
    for own in OWN[:2]:
        for other in (f"{own}\n{log}", f"{printed(text)}{own}\n", f"{printed(text)}step 2 loss 2.2\n{own}\n"):
            found = diagnose(End(State.FAILED, 1), other)
            assert found is not None
            assert found.failure.cause in ("exception", "disputed"), other
    found = diagnose(End(State.FAILED, 1), f"{log}trying again\nthe accuracy is too low\n")
    assert found is not None
    assert (found.failure.cause, found.failure.evidence) == ("disputed", text)


OTHERS = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    "OSError: [Errno 28] No space left on device",
    "socket.gaierror: [Errno -2] Name or service not known",
    "ModuleNotFoundError: No module named 'x'",
)


@pytest.mark.parametrize("before", HARMLESS)
def test_what_a_shell_or_a_library_says_at_the_start_ends_no_program(before: str) -> None:
    for text in (*MACHINES_OWN, *OTHERS):
        alone, found = diagnose(End(State.FAILED, 1), printed(text)), diagnose(End(State.FAILED, 1), f"{before}\nstep 1\n{printed(text)}")
        assert alone is not None
        assert found is not None
        assert found.failure == alone.failure, text


@pytest.mark.parametrize("own", ["train.py: error: unrecognized arguments: --lrr 3", "Loss is nan, stopping training"])
def test_a_program_that_has_said_that_it_stops_did_not_stop_by_the_machine(own: str) -> None:
    for log in (f"{own}\n{printed(MACHINES_OWN[0])}", f"{printed(MACHINES_OWN[0])}{own}\n"):
        found = diagnose(End(State.FAILED, 1), log)
        assert found is not None
        assert not blames_machine(found.failure.cause), log


# A worker's crash may be how whatever broke it shows: the machine's own words beside it explain it.
OF_THE_CODE = [one for one in CASES if one.kind is Kind.CODE and one.cause != "crash" and one.diagnosed().failure.error]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_nothing_around_a_kept_log_of_the_codes_makes_it_the_machines(data: st.DataObject) -> None:
    before = data.draw(st.lists(st.sampled_from((*HARMLESS, *SURVIVED)), max_size=6))
    after = data.draw(st.lists(st.sampled_from((SURVIVED[0], *HARMLESS)), max_size=4))
    one = data.draw(st.sampled_from(OF_THE_CODE))
    # A GPU's fault makes errors of GPU programs, so that these do not speak against it.
    others = MACHINES_OWN[:-1] if CAUSES[one.cause].blames == "unclear" else MACHINES_OWN
    last = data.draw(st.sampled_from(("", *map(printed, others))))
    found = diagnose(one.end, "\n".join([*before, one.log, *after, last]))
    assert found is not None
    assert not blames_machine(found.failure.cause), found.failure


@pytest.mark.parametrize(
    ("name", "evidence", "frame"),
    [
        ("code-rich-locals", "TypeError: foo() takes 0 positional arguments but 1 was given", ("/nemo_run/code/a.py", 8, "main")),
        ("code-pytest-short", "KeyError: 'a'", ("test_x.py", 2, "inner")),
        ("import-pytest-collect", "ModuleNotFoundError: No module named 'modle'", ("test_c.py", 1, "<module>")),
        ("code-record-table", "ValueError: x", ("/nemo_run/code/train.py", 41, "main")),
        ("code-upper-class", "src.flow.OOM: no slots | left", ("/nemo_run/code/src/run.py", 12, "main")),
        ("code-loguru", "KeyError: 'k'", ("/nemo_run/code/src/run.py", 12, "main")),
        ("code-sky-multi", "KeyError: 'x'", ("/nemo_run/code/src/run.py", 12, "main")),
        ("code-kube-prefix", "KeyError: 'x'", ("/nemo_run/code/src/run.py", 12, "main")),
        ("code-clock-only", "KeyError: 'x'", ("/nemo_run/code/src/run.py", 12, "main")),
        ("code-logging-prefixed-tb", "ValueError: bad", ("/nemo_run/code/src/a.py", 69, "f")),
        ("code-py313-colour", "ValueError: bad", ("/nemo_run/code/train.py", 41, "<module>")),
        (
            "code-hydra-full",
            "TypeError: Net.__init__() got an unexpected keyword argument 'width'",
            ("/nemo_run/code/src/run.py", 12, "main"),
        ),
        ("code-systemexit-after", "KeyError: 'x'", ("/nemo_run/code/src/run.py", 12, "main")),
        (
            "unexplained-called-process",
            "subprocess.CalledProcessError: Command '['python', 'prep.py']' returned non-zero exit status 1.",
            ("/nemo_run/code/src/run.py", 12, "main"),
        ),
    ],
)
def test_the_line_that_raised_however_the_traceback_is_drawn(name: str, evidence: str, frame: tuple[str, int, str]) -> None:
    found = case(name).diagnosed()
    assert found.failure.evidence == evidence
    assert found.frames[-1] == Frame(*frame)


def test_the_rank_stays_with_whatever_stands_before_its_label() -> None:
    for before in ("", "n1: ", "[pod/train-worker-0/pytorch] ", "3: ", "default/0 "):
        log = "".join(f"{before}[rank5]: {line}\n" for line in printed("KeyError: 'x'").splitlines())
        found = diagnose(End(State.FAILED, 1), log)
        assert found is not None
        assert (found.failure.rank, found.failure.evidence, len(found.frames)) == (5, "KeyError: 'x'", 1), before


def test_counts_before_lines_are_no_labels() -> None:
    """Lines of as many processes would be no sign that the one process went on."""
    log = f"12/500 loss 2.3\n{printed(MACHINES_OWN[0])}13/500 loss 2.2\n14/500 loss 2.1\n"
    found = diagnose(End(State.FAILED, 1), log)
    assert found is not None
    assert found.failure.cause == "disputed"


def test_a_bar_that_is_drawn_once_more_is_no_going_on() -> None:
    def bar(count: int) -> str:
        return f"  1%|          | {count}/500 [00:03<27:12,  3.27s/it]\n"

    error = printed(MACHINES_OWN[0])
    for log, cause in ((bar(5) + error + bar(5), "file-system"), (bar(5) + error + bar(6), "disputed")):
        found = diagnose(End(State.FAILED, 1), log)
        assert found is not None
        assert found.failure.cause == cause


def test_what_a_program_said_at_last_counts_only_where_nothing_else_does() -> None:
    asked = printed("torch.distributed.elastic.multiprocessing.api.SignalException: Process 120 got signal: 15")
    for code, batch, cause in (
        (1, "", "terminated"),
        (137, "", "killed"),
        (1, "srun: error: n2: task 1: Killed\n", "killed"),
        (137, "srun: error: n2: task 1: Exited with exit code 137\n", "killed"),
    ):
        found = diagnose(End(State.FAILED, code), asked, batch)
        assert found is not None
        assert found.failure.cause == cause


@pytest.mark.parametrize("words", ["[Errno 5] Input/output error", "[Errno 116] Stale file handle", "Temporary failure in name resolution"])
@pytest.mark.parametrize(
    "text", ['src.errors.ConfigError: no "{}" in retry_on', "RuntimeError: expected '{}', got none", "src.Odd: {}? no"]
)
def test_who_only_quotes_the_system_is_no_machine(words: str, text: str) -> None:
    found = diagnose(End(State.FAILED, 1), printed(text.format(words)))
    assert found is not None
    assert not blames_machine(found.failure.cause), found.failure


def test_a_log_full_of_tracebacks_is_read_in_seconds() -> None:
    """A job that logs each exception that it gets over must not hold up the sweep."""
    log = printed("ValueError: x") + "step\n"
    began = process_time()
    diagnose(End(State.FAILED, 1), log * (EXPLAIN_READ // len(log)))
    diagnose(End(State.FAILED, 1), "".join(f'h{n}: Traceback (most recent call last):\nh{n}:   File "x", line 1\n' for n in range(6000)))
    assert process_time() - began < 10, "it took half a minute when each traceback looked at all lines behind it"


@pytest.mark.parametrize("state", list(State))
def test_only_a_bad_end_has_a_failure(state: State) -> None:
    found = diagnose(End(state, who="sacct"), "")
    assert (found is not None) == (state.ended and state not in (State.SUCCEEDED, State.SKIPPED))


def test_without_a_scheduler_the_log_tells_of_its_limit() -> None:
    log = case("timeout").log
    end = End(State.FAILED, exit_code=143, by_scheduler=False, who="exit file")
    found = diagnose(end, log)
    assert found is not None
    assert found.failure.cause == "time-limit"
    told = diagnose(End(State.FAILED, exit_code=143, who="sacct"), log)
    assert told is not None
    assert told.failure.cause == "terminated"


def test_an_eviction_is_no_preemption_by_another_job() -> None:
    found = diagnose(End(State.PREEMPTED, reason="Evicted", who="kubeflow"), "")
    assert found is not None
    assert found.failure.cause == "evicted"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400), st.sampled_from(list(State)), st.none() | st.integers(-1, 300), st.none() | st.integers(0, 70))
def test_any_log_is_understood_or_not_but_never_breaks(log: str, state: State, code: int | None, signal: int | None) -> None:
    found = diagnose(
        End(state, code, signal, log[:40]), f'Traceback (most recent call last):\n  File "{log}", line 3, in {log}\n{log}Error: {log}'
    )
    assert found is None or Failure.model_validate_json(found.failure.model_dump_json()) == found.failure


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=500), st.integers(0, 10**8), st.text(max_size=120), st.sampled_from(["", "lib"]))
def test_any_frame_is_a_line_of_the_commit_or_nothing(path: str, line: int, name: str, repository: str) -> None:
    fakes = Fakes()
    fakes.forge.texts = AnyFile()
    log = f'Traceback (most recent call last):\n  File "{path}", line {line}, in {name}\nValueError: x\n'
    record = run_record(state=State.FAILED, exit_code=1, evidence="sacct", code_roots=(CodeRoot(repository=repository),))
    found = explained(record, log, fakes.world)
    assert parse_record(found.to_json()) == found


class AnyFile(dict[tuple[str, str], str]):
    """A commit that has every file."""

    def get(self, key: object, default: object = None) -> str:  # type: ignore[override]
        return "line\n" * 1000


def test_a_line_of_a_megabyte_is_cut() -> None:
    found = diagnose(End(State.FAILED, 1), "RuntimeError: CUDA out of memory. " + "x" * 1_000_000)
    assert found is not None
    assert (found.failure.cause, len(found.failure.evidence)) == ("gpu-memory", 300)


# --------------------------------------------------------------------------- tracebacks as lines of the commit


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/nemo_run/code/src/a.py", "src/a.py"),
        ("/jobs/runs/0123456789abcdef/code/train.py", "train.py"),
        ("train.py", "train.py"),
        ("./src/a.py", "src/a.py"),
        ("/usr/lib/python3.12/runpy.py", None),
        ("/jobs/runs/ffffffffffffffff/code/train.py", None),
        ("/nemo_run/code/../x.py", None),
        ("/nemo_run/code//x.py", None),
        ("../x.py", None),
        ("<frozen runpy>", None),
        ("<string>", None),
        ("venv/lib/python3.12/site-packages/torch/nn.py", None),
        ("/nemo_run/code/" + "a" * 500, None),
    ],
)
def test_paths_of_frames(path: str, expected: str | None) -> None:
    assert in_package(Frame(path, 3, "f"), ROOTS) == expected


@pytest.mark.parametrize("line", [0, 1_000_000, 10**8])
def test_line_numbers_that_no_file_has(line: int) -> None:
    assert in_package(Frame("train.py", line, "f"), ROOTS) is None


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (PackageSpec(), ()),
        (NothingSpec(), ()),
        (PackageSpec("models/nano"), (("", "models/nano"),)),
        (PackageSpec("models", more=(Choice("*.py", "shared"),)), (("", "models"), ("", "shared"))),
        (PatternSpec((Choice("src/**", "src"),)), (("", "src"),)),
        (HybridSpec((("a", PackageSpec("x")), ("b", PackageSpec()))), (("a", "x"), ("b", ""))),
        (HybridSpec((("a", PackageSpec("x")),), extract_at_root=True), (("", "x"),)),
        (PackageSpec("a" * 401), ()),
    ],
)
def test_which_folder_of_the_repository_a_package_comes_from(spec: AnySpec, expected: tuple[tuple[str, str], ...]) -> None:
    assert tuple((root.package, root.repository) for root in code_roots(spec)) == expected


def test_frames_become_lines_that_the_commit_has() -> None:
    log = case("gpu-oom").log
    record = failed(log, texts={"train.py": TRAIN, "src/model/attention.py": "x\n" * 118})
    assert record.failure is not None
    assert [(place.path, place.line, place.function) for place in record.failure.places] == [
        ("train.py", 31, "main"),
        ("src/model/attention.py", 118, "forward"),
    ]
    short = failed(log, texts={"src/model/attention.py": "x\n" * 117})
    assert short.failure is not None
    assert short.failure.places == (), "neither a file that is not there nor a line behind a file's end"


def test_the_packages_folder_comes_off_and_the_repositorys_goes_in_front() -> None:
    log = 'Traceback (most recent call last):\n  File "/nemo_run/code/part/a.py", line 2, in <module>\nValueError: x\n'
    subpath = (CodeRoot(repository="models/nano"),)
    assert [place.path for place in places(failed(log, texts={"models/nano/part/a.py": TRAIN}, code_roots=subpath))] == [
        "models/nano/part/a.py"
    ]
    hybrid = (CodeRoot(package="part", repository="lib"), CodeRoot(repository="tools"))
    assert [place.path for place in places(failed(log, texts={"lib/a.py": TRAIN}, code_roots=hybrid))] == ["lib/a.py"]
    assert [place.path for place in places(failed(log, texts={"tools/part/a.py": TRAIN}, code_roots=hybrid))] == ["tools/part/a.py"]
    assert places(failed(log, texts={"part/a.py": TRAIN}, code_roots=hybrid)) == ()


def places(record: RunRecord) -> tuple[Place, ...]:
    assert record.failure is not None
    return record.failure.places


@pytest.mark.parametrize(
    ("path", "same_as", "expected"),
    [
        ("/lustre/home/ci/dispatch/runs/{own}/code/train.py", "", ["train.py"]),
        ("/runs/{own}/code/train.py", "", ["train.py"]),
        ("/lustre/home/ci/dispatch/runs/{other}/code/train.py", "", []),
        ("/lustre/home/ci/dispatch/runs/{other}/code/train.py", "f" * 16, ["train.py"]),
        ("lustre/runs/{own}/code/train.py", "", []),
        ("/lustre/runs/{own}/code/../train.py", "", []),
        ("/lustre/runs/{own}/logs/train.py", "", []),
    ],
)
def test_real_paths_of_a_folder_that_is_reached_by_a_link(path: str, same_as: str, expected: list[str]) -> None:
    """`/home` is a link to `/lustre/home`; the code of a job that was joined lies with the run that began it."""
    where = path.format(own=run_record().run_key, other="f" * 16)
    log = f'Traceback (most recent call last):\n  File "{where}", line 2, in <module>\nValueError: x\n'
    assert [place.path for place in places(failed(log, texts={"train.py": TRAIN}, same_as=same_as))] == expected


def test_paths_that_lead_elsewhere_are_dropped() -> None:
    record = failed(case("attack-paths").log)
    assert [(place.path, place.line, place.function) for place in places(record)] == [("train.py", 5, "")]


def test_lines_of_a_working_folder_are_not_the_commits() -> None:
    assert places(failed(case("code-value-error").log, uncommitted=True)) == ()


def test_what_github_does_not_say_is_not_annotated_and_few_files_are_asked_for() -> None:
    fakes = Fakes()
    fakes.fail("forge.read_text")
    frames = "".join(f'  File "/nemo_run/code/f{number}.py", line 1, in f\n' for number in range(30))
    log = f"Traceback (most recent call last):\n{frames}ValueError: x\n"
    record = explained(run_record(state=State.FAILED, exit_code=1, evidence="sacct"), log, fakes.world)
    assert record.failure is not None
    assert (record.failure.cause, record.failure.places) == ("exception", ())
    assert len(fakes.trace.of("forge.read_text")) == 6


@pytest.mark.parametrize("path", ["/etc/passwd", "../a", "a/../b", "a//b", "./a", "", "a\nb", "a\\b", "x" * 401])
def test_a_record_holds_no_path_that_leads_elsewhere(path: str) -> None:
    with pytest.raises(ValidationError):
        Place(path=path, line=1)


def test_tracebacks_of_ranks_that_write_at_the_same_time() -> None:
    found = tracebacks(lines_of(case("code-interleaved-ranks").log))
    assert [(one.rank, one.name, len(one.frames)) for one in found[:2]] == [(0, "AssertionError", 2), (1, "AssertionError", 2)]


def test_a_traceback_behind_what_nemo_run_writes_before_each_line() -> None:
    """As `executor: local` has it; after ten letters of a role's name it cuts."""
    log = 'Traceback (most recent call last):\n  File "/x/code/train.py", line 2, in <module>\n    f()\nValueError: no\n'
    for label in ("run/0 ", "retraining/12 "):
        [found] = tracebacks(lines_of("".join(label + row for row in log.splitlines(keepends=True))))
        assert (found.name, [frame.line for frame in found.frames]) == ("ValueError", [2])


# --------------------------------------------------------------------------- the words


def said(record: RunRecord, tail: str = "", voice: Voice = Voice()) -> str:  # noqa: B008 - it is frozen
    return run_report(record, tail, NOON + timedelta(minutes=20), voice).comment


def test_a_pipe_in_the_evidence_is_shown_as_it_is() -> None:
    assert "`src.flow.OOM: no slots | left` in" in said(failed(case("code-upper-class").log, texts={"src/run.py": TRAIN}))


def test_the_comment_says_what_where_whom_and_what_next() -> None:
    body = said(failed(case("gpu-oom").log, texts={"train.py": TRAIN, "src/model/attention.py": "x\n" * 118}))
    lines = body.splitlines()
    assert lines[0] == "### ❌ train · cluster · out of GPU memory after 3m 12s"
    link = f"[`src/model/attention.py:118`](https://github.com/org/repo/blob/{HEAD}/src/model/attention.py#L118)"
    [evidence] = [line for line in lines if line.startswith("`torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")]
    assert evidence.endswith(f" in {link}, on rank 3")
    assert "This looks like the change, not the machine." in lines
    assert "**Next:** Use a smaller micro batch" in body
    assert "`/train profile=cluster recipe=default` runs it once more." in body
    at_terminal = said(failed(case("code-value-error").log), voice=Voice(at_terminal=True))
    assert " in `train.py:31`" in at_terminal


@pytest.mark.parametrize("name", sorted(CAUSES))
def test_every_cause_has_words(name: str) -> None:
    failure = Failure(kind=CAUSES[name].kind, cause=name, said_by="log", evidence="x")
    record = run_record(state=State.FAILED, exit_code=1, failure=failure)
    body = said(record)
    assert CAUSES[name].step in body
    assert CAUSES[name].step.endswith(".")
    assert headline(record, NOON) == ((name != "exception" and CAUSES[name].title) or "failed with exit code 1")


def test_a_cause_of_a_later_version_still_has_its_class() -> None:
    failure = Failure(kind=Kind.DISK, cause="tape-broken", said_by="log", evidence="x")
    assert "### ❌ train · cluster · failed with exit code 1" in said(run_record(state=State.FAILED, exit_code=1, failure=failure))
    # A record whose cause is of another class has been tampered with: the class's own words do.
    mixed = Failure(kind=Kind.CODE, cause="preempted", said_by="log")
    assert mixed.words.kind is Kind.CODE


def test_nothing_in_a_log_acts() -> None:
    record = failed(case("attack-markup").log)
    body = said(record, tail=case("attack-markup").log)
    outside = re.sub(r"```text.*?```", "", body, flags=re.DOTALL)
    [evidence] = [line for line in outside.splitlines() if "@org/everyone" in line]
    assert evidence.startswith("``ValueError: @org/everyone <img")
    assert "<img" not in re.sub(r"``.*``", "", outside)
    assert body.count("<!-- nemotron-dispatch run ") == 1 + evidence.count("<!-- nemotron-dispatch run ")
    [note] = line_annotations(record)[:1]
    assert "@\u200borg" in note.message


def test_annotations_are_the_raising_line_and_its_callers_once() -> None:
    check = run_report(failed(case("code-value-error").log), "", NOON, Voice()).check
    assert [(note.path, note.line, note.level) for note in check.annotations] == [("train.py", 31, "failure"), ("train.py", 42, "notice")]
    assert check.annotations[0].message.startswith("ValueError: Expected input batch_size")
    assert check.annotations[1].message == "Called from here on the way to train.py:31, where the job failed."


def test_before_a_very_long_exception_stands_its_traceback() -> None:
    log = case("code-value-error").log.replace("ValueError: Expected", "ValueError: " + "y" * 100_000)
    body = said(failed(log), tail=log[-TAIL_READ:])
    assert "<summary>Around the error</summary>" in body
    assert 'File "/nemo_run/code/train.py", line 31, in main' in body


def test_what_stands_far_above_the_end_is_shown_too() -> None:
    log = case("code-value-error").log + "srun: error: somewhere else\n" * 50
    body = said(failed(log), tail=log)
    assert "<summary>Around the error</summary>" in body
    assert "<summary>Around the error</summary>" not in said(failed(log), tail=case("code-value-error").log)


def test_tables_of_runs_name_it() -> None:
    fakes = Fakes()
    assert "out of GPU memory after 3m 12s" in "\n".join(runs_table([failed(case("gpu-oom").log)], fakes.world))


# --------------------------------------------------------------------------- once, at the end


def seen_end(fakes: Fakes, log: bytes, word: str = "FAILED") -> RunRecord:
    """A sweep looks at run 100, which has ended, and says so."""
    policy = read_policy(fakes.world)
    fakes.cluster.add(run_record(), "running", word, log=log)
    sweep = fakes.cluster.sweep()
    sights = sights_of(sweep, "slurm")
    [run] = sweep.runs
    seen = look(fakes.world, fakes.cluster, run, sights[run.run_key], GRACE)
    assert seen is not None
    return report(fakes.world, fakes.cluster, policy, seen).record


def test_it_is_decided_when_the_end_is_seen_and_remembered() -> None:
    fakes = Fakes()
    fakes.forge.texts[(HEAD, "train.py")] = TRAIN
    seen_end(fakes, case("code-value-error").log.encode())
    kept = parse_record(fakes.cluster.runs[run_record().run_key].record)
    assert kept.failure is not None
    assert kept.failure.cause == "exception"
    [check] = fakes.forge.checks.values()
    assert check.title == "failed with ValueError after 1m"
    assert len(check.annotations) == 2


def test_an_end_that_is_said_again_annotates_nothing_twice() -> None:
    fakes = Fakes()
    fakes.forge.texts[(HEAD, "train.py")] = TRAIN
    fakes.fail("cluster.save", "cluster.failed")
    with pytest.raises(ClusterError):
        seen_end(fakes, case("code-value-error").log.encode())
    del fakes.trace.fail["cluster.save"]
    seen_end(fakes, case("code-value-error").log.encode())
    [check] = fakes.forge.checks.values()
    assert len(check.annotations) == 2


def test_a_secret_in_the_evidence_is_masked() -> None:
    fakes = Fakes(to_hide=("hunter2hunter2",))
    log = f'Traceback (most recent call last):\n  File "train.py", line 1, in <module>\nValueError: hunter2hunter2 or hf_{"a" * 30}\n'
    record = seen_end(fakes, log.encode())
    assert record.failure is not None
    assert record.failure.evidence == "ValueError: *** or ***"


@pytest.mark.parametrize(
    ("told", "left", "parts", "exit_code", "cause"),
    [
        (9, "137\n", 1, 137, "killed"),
        (11, "139", 1, 139, "crash"),
        (9, "9", 1, 9, "exit-status"),
        (3, "137", 1, 3, "exit-status"),
        (9, "137", 4, 9, "exit-status"),
        (9, "", 1, 9, "exit-status"),
        (9, "99999999", 1, 9, "exit-status"),
        (None, "137", 1, None, "exit-status"),
    ],
)
def test_slurm_keeps_seven_bits_of_an_exit_code(told: int | None, left: str, parts: int, exit_code: int | None, cause: str) -> None:
    record = run_record(state=State.FAILED, exit_code=told, evidence="sacct", parts=parts)
    found = explained(record, "", Fakes().world, left)
    assert found.failure is not None
    assert (found.exit_code, found.failure.cause) == (exit_code, cause)


def test_of_a_long_log_more_is_read_than_is_shown() -> None:
    """One rank's traceback, and then what the others have to say of it."""
    fakes = Fakes()
    others = "[rank1]:[E1130 14:12:44.9 ProcessGroupNCCL.cpp:616] frame #0: c10d::abort\n" * 2000
    assert len(others) > TAIL_READ
    record = seen_end(fakes, (case("code-value-error").log + others).encode())
    assert record.failure is not None
    assert record.failure.cause == "exception"


def test_what_passed_has_none_and_reads_nothing_more() -> None:
    fakes = Fakes()
    record = seen_end(fakes, case("code-value-error").log.encode(), "COMPLETED")
    assert record.failure is None
    assert not fakes.trace.of("forge.read_text")
