"""The runs of one command that became several → their one comment: a headline, a table, and what to do with what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from dispatcher.answer import DOCS, RUN_MARK, Voice, marker
from dispatcher.failurereport import next_attempt_words
from dispatcher.headline import headline
from dispatcher.phrases import WITH_CHANGES, clock, number, plural
from dispatcher.record import Member, RunRecord
from dispatcher.report import icon
from dispatcher.runtable import attempt_words, links
from dispatcher.slurm import State
from dispatcher.stagetable import NOT_BEGUN, UNHEARD, metrics_words, stage_table
from dispatcher.untrusted import code, neutralise

_RETRIES = {False: "runs what failed once more", True: "runs what failed once more, and the stages that come after it"}


def group_comment(
    members: Sequence[Member],
    records: Mapping[str, RunRecord],
    missing: Mapping[str, str],
    now: datetime,
    voice: Voice,
    unheard: Collection[str] = (),
) -> str:
    """The whole comment, with the marker by which it is found again.

    `records` by run key; `missing`: why others have none, in Markdown; `unheard`: those whose ledger did not answer.
    """
    first = _own(members, records)[0]
    body = group_lines(members, records, missing, now, voice, unheard)
    known = [records[member.run_key] for member in members if member.run_key in records]
    goes_on = bool(unheard) or any(not record.state.ended for record in known)
    end = f"end one with `{voice.word} cancel RUN`, " if goes_on else ""
    hint = f"{end}see a log with `{voice.word} logs RUN`"
    body += ["", f"<sub>Updated {clock(now, now)} · {hint} · [how this works]({DOCS}/commands.md)</sub>"]
    return "\n".join([*body, "", marker(first.trigger), f"{RUN_MARK}{first.run_key} -->"])


def group_lines(
    members: Sequence[Member],
    records: Mapping[str, RunRecord],
    missing: Mapping[str, str],
    now: datetime,
    voice: Voice,
    unheard: Collection[str] = (),
) -> list[str]:
    """The same without marker and footer, as a summary shows it."""
    known = [records[member.run_key] for member in members if member.run_key in records]
    absent = len(members) - len(known) - len(unheard)
    own = _own(members, records)
    first = own[0]
    commit = f"[`{first.sha[:7]}`]({voice.server_url}/{first.target.repository}/commit/{first.sha})"
    commit += f" {WITH_CHANGES}" if first.uncommitted else ""
    total = sum(record.resources.gpu_hours for record in own)
    # Of a sweep over recipes each row names its own.
    names = {record.pipeline or record.recipe for record in known}
    recipe = f"`{first.pipeline or first.recipe}` at " if len(names) == 1 else ""
    asked = f"{recipe}{commit} · asked by {code(first.actor)} {clock(first.asked_at, now)}"
    if first.repeats is not None:
        asked += f" · {attempt_words(first)}"
    lines = [
        f"### {_icon(known, absent, len(unheard))} {voice.name} · {_count(members, known)} · {_tally(known, absent, len(unheard))}",
        "",
        asked + (f" · at most {number(total)} GPU-hours" if total else ""),
        "",
    ]
    shared = set.intersection(*(set(record.overrides) for record in known))
    if any(member.stage for member in members):
        lines += stage_table(members, records, missing, shared, now, voice, unheard)
    else:
        lines += _table(members, records, missing, shared, now, voice, unheard, bool(recipe))
    if shared:
        lines += ["", "All with " + " ".join(code(item) for item in first.overrides if item in shared)]
    told = [(record, words) for record in own if (words := next_attempt_words(record))]
    if told:
        lines += ["", *(f"- run `{voice.key(record.run_key)}`: {words}" for record, words in told)]
    failed = [record for record in known if record.state.ended and not record.ended_well]
    if failed and not unheard and all(record.state.ended for record in known):
        stages = any(member.stage for member in members)
        retry = f"`{voice.word} retry` {_RETRIES[stages]}; " if _is_for_a_person(failed, stages) and not voice.at_terminal else ""
        lines += ["", f"**Next:** {retry}`{voice.logs(failed[0].run_key)}` shows a log."]
    return lines


def _is_for_a_person(failed: Sequence[RunRecord], stages: bool) -> bool:
    """Whether something failed that is not run again by itself; with a stage, what comes after it is."""
    return not (any if stages else all)(record.followed_by or record.retry_owed for record in failed)


def _own(members: Sequence[Member], records: Mapping[str, RunRecord]) -> list[RunRecord]:
    """The runs that the command itself has started; of a pipeline that is run again others may stand beside them."""
    return [records[member.run_key] for member in members if member.run_key in records and not member.reused]


def _count(members: Sequence[Member], known: Sequence[RunRecord]) -> str:
    """How many runs they are; of one pipeline its name, and its stages."""
    names = [member.stage for member in members]
    pipelines = {record.pipeline for record in known}
    if all(names) and len(set(names)) == len(names) and len(pipelines) == 1:
        return f"{known[0].pipeline} · {plural(len(members), 'stage')}"
    return plural(len(members), "run")


def _table(
    members: Sequence[Member],
    records: Mapping[str, RunRecord],
    missing: Mapping[str, str],
    shared: Collection[str],
    now: datetime,
    voice: Voice,
    unheard: Collection[str],
    same_recipe: bool,
) -> list[str]:
    lines = ["| | profile | with | state | job | run | |", "|---|---|---|---|---|---|---|"]
    for member in members:
        record = records.get(member.run_key)
        if member.run_key in unheard:
            lines.append(f"| ❓ | `{member.profile}` | | {UNHEARD} | | `{voice.key(member.run_key)}` | |")
        elif record is None:
            lines.append(f"| 🚫 | `{member.profile}` | | {missing.get(member.run_key, NOT_BEGUN)} | | `{voice.key(member.run_key)}` | |")
        else:
            lines.append(_row(record, shared, now, same_recipe, voice))
    return lines


def _row(record: RunRecord, shared: Collection[str], now: datetime, same_recipe: bool, voice: Voice) -> str:
    own = " ".join(code(item) for item in record.overrides if item not in shared)
    recipe = "" if same_recipe else f" / `{record.recipe}`"
    state = neutralise(headline(record, now).replace(f"job {record.job_id} ", "", 1), 200)
    if record.reason and record.state in (State.PENDING, State.QUEUED, State.CANCELLED):
        state += f" ({neutralise(record.reason, 160)})"
    state += metrics_words(record)
    job = f"`{record.job_id}`" if record.job_id else ""
    return f"| {icon(record)} | `{record.profile}`{recipe} | {own} | {state} | {job} | `{voice.key(record.run_key)}` | {links(record)} |"


def _icon(records: Sequence[RunRecord], absent: int, unheard: int) -> str:
    bad = [record.state for record in records if record.state.ended and not record.ended_well]
    if bad or absent:
        return "🛑" if not absent and len(bad) == len(records) and set(bad) == {State.CANCELLED} else "❌"
    if all(record.state.ended for record in records):
        return "❓" if unheard else "✅"
    return "🏃" if any(record.state is State.RUNNING for record in records) else "⏳"


def _tally(records: Sequence[RunRecord], absent: int, unheard: int) -> str:
    words = {State.SUCCEEDED: "passed", State.PENDING: "waiting", State.QUEUED: "queued here", State.SUBMITTING: "being submitted"}
    words[State.SKIPPED] = "not needed"
    counted = Counter(
        "failed"
        if record.state.ended and not record.ended_well and record.state is not State.CANCELLED
        else words.get(record.state, record.state.value)
        for record in records
    )
    parts = [f"{count} {name}" for name, count in counted.items()]
    parts += [f"{absent} not started"] if absent else []
    parts += [f"{unheard} not known right now"] if unheard else []
    return ", ".join(parts)
