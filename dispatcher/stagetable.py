"""The stages of a pipeline → the table of their comment: a row a stage, in their order, with what it waits for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from dispatcher.answer import Voice
from dispatcher.curvereport import steps_words
from dispatcher.headline import headline
from dispatcher.phrases import number
from dispatcher.record import Member, RunRecord
from dispatcher.report import icon
from dispatcher.runtable import after_words, links
from dispatcher.slurm import State
from dispatcher.untrusted import code, neutralise

NOT_BEGUN = "did not start: its check says why, if it has one"
# A run has one row of the table.
_FEW = 4
UNHEARD = "its cluster does not answer right now"


def stage_table(
    members: Sequence[Member],
    records: Mapping[str, RunRecord],
    missing: Mapping[str, str],
    shared: Collection[str],
    now: datetime,
    voice: Voice,
    unheard: Collection[str],
) -> list[str]:
    """Markdown lines. `shared` are the overrides that all have; a column for others is there only where a stage has some."""
    own = {key: [item for item in record.overrides if item not in shared] for key, record in records.items()}
    with_own = any(own.values())
    lines = [f"| | stage | profile | after |{' with |' if with_own else ''} state | job | run | |", "|---" * (9 if with_own else 8) + "|"]
    for member in members:
        record = records.get(member.run_key)
        waits = record is not None and _is_waiting(record, member, records)
        sign, state = "🚫", missing.get(member.run_key, NOT_BEGUN)
        if member.run_key in unheard:
            sign, state = "❓", UNHEARD
        elif record is not None:
            sign, state = icon(record), _state(record, member, now, waits)
        job = f"`{record.job_id}`" if record and record.job_id else ""
        log = links(record) if record and not waits else ""
        words = " ".join(code(item) for item in own.get(member.run_key, []))
        cells = [
            sign,
            _stage(member, record),
            f"`{member.profile}`",
            after_words((other.stage for other in members if other.run_key in member.after), member.when),
        ]
        cells += [*([words] if with_own else []), state, job, f"`{voice.key(member.run_key)}`", log]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def metrics_words(record: RunRecord) -> str:
    """What the job measured, or how far it is, behind its state; empty where nothing is known. The check has all metrics."""
    if record.state is State.RUNNING and record.progress is not None:
        return f" · {steps_words(record.progress)}"
    found = [
        f"{neutralise(name)} {neutralise(value) if isinstance(value, str) else number(value)}" for name, value in record.results.items()
    ]
    more = ", …" if len(found) > _FEW else ""
    return " · **" + ", ".join(found[:_FEW]) + more + "**" if found else ""


def _stage(member: Member, record: RunRecord | None) -> str:
    """The stage's name, and its recipe where that has another; in a group with other runs some are no stages."""
    if not member.stage:
        return f"`{record.recipe}`" if record else ""
    return f"`{member.stage}`" + (f" ({code(record.recipe)})" if record and record.recipe != member.stage else "")


def _state(record: RunRecord, member: Member, now: datetime, waits: bool) -> str:
    if waits:
        return "waits"
    words = neutralise(headline(record, now).replace(f"job {record.job_id} ", "", 1), 200)
    if record.reason and record.state in (State.PENDING, State.QUEUED, State.CANCELLED, State.SKIPPED):
        words += f" ({neutralise(record.reason, 160)})"
    return words + (" · an earlier run, reused" if member.reused else "") + metrics_words(record)


def _is_waiting(record: RunRecord, member: Member, records: Mapping[str, RunRecord]) -> bool:
    """Whether it waits for other stages, and for nothing else: those stand beside it."""
    by_slurm = record.state is State.PENDING and record.reason in ("Dependency", "")
    here = record.state is State.QUEUED and record.reason.startswith("waits for stage")
    return (by_slurm or here) and any(key not in records or not records[key].state.ended for key in member.after)
