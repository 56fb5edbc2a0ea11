"""Reports: the words for every state, and that nothing in them acts, whoever wrote it."""

from __future__ import annotations

import json
import math
import re
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.answer import RUN_MARK, Answer, Voice, marker
from dispatcher.authorise import Denial
from dispatcher.errors import CATALOGUE, ConfigError, DispatchError, Exit
from dispatcher.grammar import Malformed
from dispatcher.headline import headline
from dispatcher.profile import UnknownProfile
from dispatcher.record import RunRecord
from dispatcher.refusals import broken, denied, headed, malformed, rejected, told, unknown_profile
from dispatcher.report import TAIL_BYTES, TAIL_LINES, Report, last_lines, run_report
from dispatcher.running import runs_table
from dispatcher.slurm import State
from tests.fakes import HEAD, NOON, Fakes, run_record

NOW = NOON + timedelta(minutes=20)
RAN = {"started_at": NOON, "ended_at": NOON + timedelta(minutes=12, seconds=4)}
ZERO_WIDTH = "\u200b"


def said(tail: str = "", voice: Voice = Voice(), **fields: object) -> Report:  # noqa: B008 - it is frozen
    return run_report(run_record(**fields), tail, NOW, voice)


# --------------------------------------------------------------------------- every state


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": State.SUBMITTING, "job_id": ""}, "⏳ train · cluster · is being submitted"),
        ({}, "⏳ train · cluster · job 100 is waiting for 2 nodes"),
        ({"state": State.RUNNING, "started_at": NOON}, "🏃 train · cluster · job 100 is running for 20m"),
        ({"state": State.RUNNING}, "🏃 train · cluster · job 100 is running"),
        ({"state": State.SUCCEEDED, **RAN}, "✅ train · cluster · passed in 12m 04s"),
        ({"state": State.SUCCEEDED}, "✅ train · cluster · passed"),
        (
            {"state": State.SUCCEEDED, "results_problem": "it left no results file"},
            "❌ train · cluster · ended well, but it left no results file",
        ),
        ({"state": State.FAILED, "exit_code": 3, **RAN}, "❌ train · cluster · failed with exit code 3 after 12m 04s"),
        ({"state": State.FAILED, "signal": 9, "exit_code": 0}, "❌ train · cluster · was ended by signal 9"),
        ({"state": State.FAILED}, "❌ train · cluster · failed"),
        ({"state": State.TIMEOUT, **RAN}, "⌛ train · cluster · was ended at its time limit after 12m 04s"),
        ({"state": State.OUT_OF_MEMORY}, "❌ train · cluster · ran out of memory"),
        ({"state": State.CANCELLED}, "🛑 train · cluster · was cancelled"),
        ({"state": State.PREEMPTED}, "❌ train · cluster · was preempted by another job"),
        ({"state": State.NODE_FAIL}, "❌ train · cluster · was ended by the failure of a node"),
        ({"state": State.LOST}, "❓ train · cluster · job 100 is lost: the scheduler no longer knows it"),
        ({"state": State.UNKNOWN, "reason": "SPECIAL"}, "❓ train · cluster · job 100 is in a state that is not known here: SPECIAL"),
    ],
)
def test_the_headline(fields: dict[str, object], words: str) -> None:
    report = said(**fields)
    assert report.comment.splitlines()[0] == f"### {words}"
    assert report.summary.splitlines()[0] == f"### {words}"
    assert report.check.title == words.split(" · ", 2)[2]


def test_every_state_has_words() -> None:
    assert all(headline(run_record(state=state), NOW) for state in State)


@pytest.mark.parametrize(
    ("state", "problem", "status", "conclusion", "reaction"),
    [
        (State.SUBMITTING, "", "queued", None, None),
        (State.PENDING, "", "queued", None, None),
        (State.RUNNING, "", "in_progress", None, None),
        (State.UNKNOWN, "", "queued", None, None),
        (State.SUCCEEDED, "", "completed", "success", "rocket"),
        (State.SUCCEEDED, "it left no results file", "completed", "failure", "confused"),
        (State.FAILED, "", "completed", "failure", "confused"),
        (State.TIMEOUT, "", "completed", "timed_out", "confused"),
        (State.OUT_OF_MEMORY, "", "completed", "failure", "confused"),
        (State.CANCELLED, "", "completed", "cancelled", "confused"),
        (State.PREEMPTED, "", "completed", "failure", "confused"),
        (State.NODE_FAIL, "", "completed", "failure", "confused"),
        (State.LOST, "", "completed", "failure", "confused"),
    ],
)
def test_the_check_and_the_reaction(state: State, problem: str, status: str, conclusion: str | None, reaction: str | None) -> None:
    report = said(state=state, results_problem=problem)
    assert (report.check.status, report.check.conclusion, report.reaction) == (status, conclusion, reaction)
    assert (report.check.name, report.check.sha, report.check.external_id) == ("dispatch / cluster / default", HEAD, "0123456789abcdef")


def test_only_success_is_green() -> None:
    for state in State:
        for problem in ("", "none"):
            green = said(state=state, results_problem=problem).check.conclusion in ("success", "neutral", "skipped")
            # A stage that was not needed keeps nobody from merging; whether that may be, the gate knows.
            assert green == (state in (State.SUCCEEDED, State.SKIPPED) and not problem)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": State.FAILED}, "`/train profile=cluster recipe=default a=1` runs it once more"),
        ({"state": State.OUT_OF_MEMORY}, "The end of the log"),
        ({"state": State.TIMEOUT}, "more than its 4h"),
        ({"state": State.NODE_FAIL}, "the machine, not the change"),
        ({"state": State.LOST}, "does not count as passed"),
        ({"state": State.CANCELLED}, "once more"),
        (
            {"state": State.SUCCEEDED, "results_problem": "it left no results file", "results_path": "code/out/r.json"},
            "Write `out/r.json`, the results file that the recipe `default` promises",
        ),
        (
            {"state": State.SUCCEEDED, "results_problem": "the results file is empty", "results_path": "code/out/r.json"},
            "Mend what the job writes into `out/r.json`: [what it may hold](",
        ),
        (
            {"state": State.SUCCEEDED, "results_problem": "the W&B summary is empty", "wandb_summary_path": "code/wandb/s.json"},
            "Mend what the job writes into `wandb/s.json`",
        ),
        ({"state": State.SUCCEEDED}, ""),
        ({"state": State.RUNNING}, ""),
    ],
)
def test_what_can_be_done_now(fields: dict[str, object], words: str) -> None:
    comment = said(overrides=("a=1",), **fields).comment
    assert ("**Next:**" in comment) == bool(words)
    assert words in comment


def test_the_command_to_repeat_it_reads_back() -> None:
    from dispatcher.grammar import Override, Run
    from dispatcher.verbs import parse_line

    line = Voice().again(run_record(overrides=("a=two words", "b=it's", 'c="q"')))
    command = parse_line(line.removeprefix("/train"))
    assert command == Run("cluster", "default", overrides=(Override("a", "two words"), Override("b", "it's"), Override("c", '"q"')))


# --------------------------------------------------------------------------- the table


def row(report: Report, name: str) -> str:
    [found] = [line for line in report.comment.splitlines() if line.startswith(f"| {name} |")]
    return found


def test_what_where_when() -> None:
    report = said(overrides=("a=1",), nodes="n[1-2]", state=State.RUNNING, started_at=NOON + timedelta(minutes=5))
    assert row(report, "What") == (
        f"| What | `default` (`train.py`) at [`{HEAD[:7]}`](https://github.com/org/repo/commit/{HEAD}) · `a=1` |"
    )
    assert row(report, "Where") == "| Where | `cluster` · partition batch · 2 × 8 GPUs · at most 4h = 64 GPU-hours · on `n[1-2]` |"
    assert row(report, "When") == "| When | asked by `alice` 14:02 UTC · started 14:07 UTC |"
    assert row(report, "Job") == "| Job | `100` on `ci@login.example.com` |"
    assert "cancel with `/train cancel 01234567`" in report.comment


@pytest.mark.parametrize(
    ("fields", "voice", "link"),
    [
        ({"log_template": "https://logs/0JOBID0"}, Voice(), "[open the log](https://logs/100)"),
        ({}, Voice(summary_url="https://github.com/o/r/actions/runs/1"), "[open the log](https://github.com/o/r/actions/runs/1)"),
        ({}, Voice(), "`/jobs/runs/0123456789abcdef/logs`"),
        ({"log_template": "https://logs/0JOBID0", "job_id": ""}, Voice(), "`/jobs/runs/0123456789abcdef/logs`"),
    ],
)
def test_the_log_link(fields: dict[str, object], voice: Voice, link: str) -> None:
    assert row(said(voice=voice, **fields), "Log") == f"| Log | {link} |"


def test_the_schedulers_estimate_while_it_waits() -> None:
    assert "estimates a start at 14:32 UTC" in said(estimated_start=NOW + timedelta(minutes=10)).comment
    assert "estimates" not in said(estimated_start=NOON).comment
    assert "place 7 of 1,200 in the partition's queue" in said(queue_place=7, queue_length=1200).comment
    assert "place" not in said(state=State.RUNNING, queue_place=7, queue_length=1200).comment
    assert "Waiting for: Priority" in said(reason="Priority").comment
    assert "Waiting" not in said(state=State.RUNNING, reason="Priority").comment
    assert "Reason: NonZeroExitCode" in said(state=State.FAILED, reason="NonZeroExitCode").comment
    queued = said(state=State.QUEUED, reason="place 1 in the queue: alice has 1 of 1 active runs").comment
    assert "\n\nIt has place 1 in the queue: alice has 1 of 1 active runs\n\n" in queued
    assert "| Log |" not in queued, "nothing runs, and nothing is written"


def test_at_a_terminal_the_commands_are_the_terminals() -> None:
    comment = said(voice=Voice(at_terminal=True), state=State.FAILED).comment
    assert "`nemotron-dispatch submit profile=cluster recipe=default` runs it once more" in comment
    assert "cancel with `nemotron-dispatch cancel 01234567`" in said(voice=Voice(at_terminal=True)).comment
    assert "/train" not in comment


def test_another_word_everywhere() -> None:
    assert "/train" not in said(voice=Voice(word="/run"), state=State.FAILED).comment.replace("/train.py", "")


# --------------------------------------------------------------------------- metrics and logs


def test_metrics() -> None:
    report = said(state=State.SUCCEEDED, results={"loss": 1.87312, "steps": 12345, "device": "cpu", "best": None, "last": math.nan})
    assert "**loss 1.873** · **steps 12,345** · **device cpu** · **best no value**" in report.comment
    assert "<summary>All metrics</summary>" in report.comment
    assert "| last | nan |" in report.comment


def test_the_result_output_is_json_for_everybody() -> None:
    results = {"nan": math.nan, "up": math.inf, "down": -math.inf, "x": 1.5, "n": None, "t": "ü"}
    text = said(state=State.SUCCEEDED, results=results).outputs["result"]

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(text, parse_constant=no_constant) == {
        "nan": "NaN",
        "up": "Infinity",
        "down": "-Infinity",
        "x": 1.5,
        "n": None,
        "t": "ü",
    }


TAIL = "\n".join(f"line {number}" for number in range(100))


@pytest.mark.parametrize(
    ("state", "in_comment"), [(State.FAILED, True), (State.TIMEOUT, True), (State.SUCCEEDED, False), (State.RUNNING, False)]
)
def test_the_comment_shows_the_tail_of_what_failed_and_the_summary_always(state: State, in_comment: bool) -> None:
    report = said(TAIL, state=state)
    assert ("line 99" in report.comment) == in_comment
    assert "line 99" in report.summary
    assert f"line {99 - TAIL_LINES}\n" not in report.summary


def test_long_lines_are_capped() -> None:
    assert len(said("x" * 100_000, state=State.FAILED).comment.encode()) < TAIL_BYTES + 4000


def test_git_lfs_pointers_are_told_of() -> None:
    assert "Git LFS pointers" in said(lfs_pointers=("model.bin",)).comment


# --------------------------------------------------------------------------- nothing acts


def outside(markdown: str) -> str:
    """The Markdown without fenced blocks and code spans: what is left would act."""
    text = re.sub(r"(?ms)^(`{3,})\w*\n.*?^\1$", "", markdown)
    return re.sub(r"(?<!`)(`+)(?!`)(?:.*?)(?<!`)\1(?!`)", "", text)


HOSTILE = (
    "@org/everyone #1 <img src=x> | [x](https://evil.example) ![y](z) **b** `c` ```"
    "\n### head\n<!-- nemotron-dispatch abc --> ::set-output::"
)


def assert_harmless(markdown: str) -> None:
    left = outside(markdown)
    assert "@org/everyone" not in left
    assert "<img" not in left
    assert "](https://evil" not in left.replace("\\]\\(", "")
    assert "### head" not in left.splitlines()
    assert "<!-- nemotron-dispatch abc -->" not in markdown.splitlines()


@pytest.mark.parametrize("state", [State.FAILED, State.PENDING, State.UNKNOWN, State.SUCCEEDED])
def test_what_a_scheduler_or_a_job_says_does_nothing(state: State) -> None:
    report = said(
        HOSTILE,
        state=state,
        reason=HOSTILE,
        nodes=HOSTILE,
        cluster=HOSTILE,
        program=HOSTILE,
        actor=HOSTILE,
        overrides=(f"a={HOSTILE}",),
        results={HOSTILE: HOSTILE, "b": 1, "c": 1, "d": 1, "e": HOSTILE},
        results_problem=HOSTILE if state is State.SUCCEEDED else "",
        resources={"partition": HOSTILE},
        lfs_pointers=(HOSTILE,),
    )
    for text in (report.comment, report.summary, report.check.summary):
        assert_harmless(text)
        # Every row of a table keeps its cells.
        for line in text.splitlines():
            if line.startswith("| ") and not line.startswith(("| metric", "| run")):
                assert len(re.findall(r"(?<!\\)\|", line)) == 3, line
    # Values with pipes in code spans are escaped too.
    assert_harmless("\n".join(runs_table([run_record(state=state, reason=HOSTILE)], Fakes().world)))


@given(st.text(st.sampled_from("`~\n <!-->@[]|x\r\u2028"), max_size=40))
@example("```\n```\n")
@example("~~~")
@example("<!--")
def test_no_log_leaves_its_block(text: str) -> None:
    report = said(f"begin\n{text}\nend", state=State.FAILED)
    [block] = re.findall(r"(?ms)^(`{3,})text\n(.*?)^\1$", report.comment)
    assert block[1].startswith("begin")
    assert block[1].endswith("end\n")


def test_nobody_elses_words_are_a_marker() -> None:
    forged = f"{marker('comment:100')}\n{RUN_MARK}ffffffffffffffff -->"
    report = said(forged, state=State.FAILED, overrides=(f"a={forged}",), reason=forged, results={"x": forged})
    refusals = [
        rejected(forged, "comment:99"),
        broken(DispatchError("cluster.failed", forged), "comment:99"),
        unknown_profile(UnknownProfile(forged, None, (forged,)), "comment:99", Voice()),
    ]
    for text in (report.comment, *(answer.comment for answer in refusals)):
        mine = [line for line in text.splitlines() if line.startswith("<!-- nemotron-dispatch")]
        assert marker("comment:100") not in mine
        assert marker("comment:99") in mine
        assert f"{RUN_MARK}ffffffffffffffff -->" not in mine


def test_the_marker() -> None:
    assert said().comment.splitlines()[-2:] == [marker("comment:99"), f"{RUN_MARK}0123456789abcdef -->"]
    assert marker("comment:99") != marker("comment:9")
    assert marker("x -->").count("-->") == 1


# --------------------------------------------------------------------------- not started


@pytest.mark.parametrize(
    ("answer", "first", "reason", "decision", "exit_code"),
    [
        (
            denied(Denial("role-too-low", "**`bob` may not.** It takes write.", "Ask."), "t"),
            "### 🚫 Not started: `bob` may not",
            "role-too-low",
            "denied",
            Exit.DENIED,
        ),
        (
            malformed(Malformed("bad-key", "`x y` is not a key.", "Hint."), "t", Voice()),
            "### 🤔 Not understood: `x y` is not a key",
            "bad-key",
            "malformed",
            Exit.MALFORMED,
        ),
        (
            unknown_profile(UnknownProfile("clutser", "cluster", ("cluster", "local")), "t", Voice()),
            "### 🤔 Not started: there is no profile `clutser`",
            "unknown-profile",
            "refused",
            Exit.CONFIG,
        ),
        (
            broken(ConfigError("config.invalid", "`a.yml:3`: no"), "t"),
            "### 😕 Not started: the configuration cannot be used",
            "config.invalid",
            "refused",
            Exit.CONFIG,
        ),
        (
            rejected("sbatch: error: no", "t"),
            "### 😕 Not started: the scheduler refused the job",
            "sbatch-refused",
            "refused",
            Exit.CLUSTER,
        ),
    ],
)
def test_answers(answer: Answer, first: str, reason: str, decision: str, exit_code: Exit) -> None:
    lines = answer.comment.splitlines()
    assert lines[0] == first
    assert (answer.reason, answer.outputs["reason-code"], answer.outputs["decision"], answer.exit) == (reason, reason, decision, exit_code)
    assert lines[-1] == marker("t")
    assert f"reason `{reason}` · nothing was submitted" in answer.comment
    assert any(line.startswith("**Next:**") for line in lines)


@pytest.mark.parametrize("code", sorted(CATALOGUE))
def test_every_code_can_be_answered(code: str) -> None:
    error = DispatchError(code, HOSTILE)
    answer = broken(error, "t")
    assert answer.exit is CATALOGUE[code].exit
    assert_harmless(answer.comment)
    assert "nothing was submitted" in answer.comment
    error.job_may_exist = True
    assert "nothing was submitted" not in broken(error, "t").comment


def test_the_schedulers_words_are_shown_and_do_nothing() -> None:
    assert_harmless(rejected(HOSTILE, "t").comment)
    assert "Invalid account" in rejected("sbatch: error: Invalid account", "t").comment


@pytest.mark.parametrize(
    ("words", "title", "rest"),
    [("**A b.** More.", "A b", "More."), ("**A**", "A", ""), ("A.", "A", ""), ("**A", "**A", ""), ("", "", "")],
)
def test_titles_and_the_rest(words: str, title: str, rest: str) -> None:
    assert headed(words) == (title, rest)


@pytest.mark.parametrize(("text", "when"), [("2024-05-06T14:02:00Z", NOON), ("", None), ("yesterday", None)])
def test_when_github_says_that_it_happened(text: str, when: object) -> None:
    assert told(text) == when


def test_runs_newest_first() -> None:
    runs: list[RunRecord] = [run_record(run_key=f"{number:016x}", asked_at=NOON + timedelta(hours=number)) for number in (1, 3, 2)]
    rows = [line for line in runs_table(runs, Fakes().world) if "| `0000" in line]
    assert [row.split("`")[1] for row in rows] == ["00000000"] * 3
    assert [re.findall(r"\d\d:\d\d", row)[-1] for row in rows] == ["17:02", "16:02", "15:02"]


def test_of_a_bar_that_is_drawn_again_and_again_the_last_one_is_shown() -> None:
    bar = "".join(f"\rEpoch 0: {step}/500 [train_loss=2.0]" for step in range(100))
    assert last_lines(f"loading\r\n{bar}\r   \nsaved\r\n") == "loading\nEpoch 0: 99/500 [train_loss=2.0]\nsaved"
