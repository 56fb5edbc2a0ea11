"""What may be asked of runs that exist: end them, list a pull request's, show the end of a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dispatcher.admission import drop
from dispatcher.answer import BROKEN, UNUSABLE, Answer, refusal
from dispatcher.authorise import Denial
from dispatcher.configuration import profile_names, read_profile
from dispatcher.connections import ledger_of
from dispatcher.dependents import dependents, last_first
from dispatcher.errors import DispatchError, Exit
from dispatcher.headline import headline
from dispatcher.keys import pull_tag
from dispatcher.observe import Seen
from dispatcher.phrases import clock
from dispatcher.policy import Policy
from dispatcher.ports import Cluster
from dispatcher.profile import Profile, UnknownProfile
from dispatcher.record import RunRecord
from dispatcher.refusals import answered, denied
from dispatcher.report import icon
from dispatcher.runtable import links
from dispatcher.salvage import readable
from dispatcher.slurm import State
from dispatcher.telling import report
from dispatcher.untrusted import code, fence, neutralise, redact
from dispatcher.usage import LEFT
from dispatcher.verbs import Cancel, Logs
from dispatcher.world import World

# A comment has room for 65,536 characters; a line of a log may be any length.
LOG_BYTES = 48_000


@dataclass(frozen=True)
class Found:
    """A run and the profile whose ledger has it."""

    profile: Profile
    record: RunRecord


def watched_profiles(world: World, policy: Policy) -> list[tuple[str, Profile]]:
    """One profile for each ledger there is: those that the policy names, else every one that has a file; unusable ones are told about."""
    names = policy.watch.profiles or tuple(
        dict.fromkeys([*profile_names(world), *([policy.default_profile] if policy.default_profile else [])])
    )
    found: dict[object, tuple[str, Profile]] = {}
    for name in names:
        try:
            resolved = read_profile(world, policy, name)
        except DispatchError as error:
            world.say(f"Profile {name} is left out: {error.cause}")
            continue
        if isinstance(resolved, UnknownProfile):
            world.say(f"Profile {name} is left out: there is no such profile.")
            continue
        found.setdefault(ledger_of(resolved.profile), (name, resolved.profile))
    return list(found.values())


def runs_of_pull(world: World, policy: Policy, repository: str, number: int) -> list[Found]:
    """A pull request's runs in every ledger, oldest first; a ledger that cannot be asked is told about, and the others still answer."""
    tag = pull_tag(repository, number)
    found: list[Found] = []
    for name, profile in watched_profiles(world, policy):
        try:
            with _open(world, profile) as cluster:
                records, problem = readable(cluster.find(tag))
                found += [Found(profile, record) for record in records]
            if problem:
                world.say(f"{name}: {problem}")
        except DispatchError as error:
            world.say(f"{name}: {error.cause}")
    return sorted(found, key=lambda item: item.record.asked_at)


# --------------------------------------------------------------------------- end


def cancel_runs(
    world: World, policy: Policy, command: Cancel, runs: Sequence[Found], actor: str, trigger: str, may: Callable[[RunRecord], str | Denial]
) -> Answer:
    """Ends runs of this pull request: the named one, a profile's, all, or the only active one.

    Who asked for a run may end it; anybody else must be admitted to its profile (`may`). All are checked before any is ended.
    """
    active = [item for item in runs if not item.record.state.ended]
    if command.profile is not None:
        active = [item for item in active if item.record.profile == command.profile]
    wanted = [item for item in active if item.record.run_key.startswith(command.run or "")]
    several = command.all or command.profile is not None
    if not wanted or (len(wanted) > 1 and not several):
        over = [item.record for item in runs if command.run and item.record.run_key.startswith(command.run) and item.record.state.ended]
        return _ended_already(over[-1], trigger, world) if over and not wanted else _not_one(command, wanted, trigger, world)
    active = [item for item in runs if not item.record.state.ended]
    after = dependents([item.record for item in wanted], [item.record for item in active])
    wanted = _last_first([*wanted, *(item for item in active if item.record in after)])
    for item in wanted:
        refused = may(item.record) if item.record.actor.lower() != actor.lower() else ""
        if isinstance(refused, Denial):
            return denied(refused, trigger)
    lines = []
    for item in wanted:
        told = end_run(item, f"cancelled by {actor}", policy, world)
        lines.append(f"- `{item.record.run_key[:8]}` ({item.record.profile} / {item.record.name}): {told or 'is being ended'}")
        if told is not None and len(wanted) == 1 and told.startswith("could not"):
            return refusal("the job could not be ended", "cancel-refused", told, "", trigger, BROKEN, Exit.CLUSTER, lead="Not done")
    if len(wanted) == 1:
        record = wanted[0].record
        title = f"### 🛑 Run `{record.run_key[:8]}` ({record.profile} / {record.name}) {told or 'is being ended'}"
        return answered("cancelled", [title, *(["", "Its own comment says so as soon as it has ended."] if told is None else [])], trigger)
    title = f"### 🛑 {len(wanted)} runs are being ended"
    if after:
        title += f", {len(after)} of them because they come after {'another one' if len(wanted) - len(after) == 1 else 'others'}"
    words = "Each run's own comment says so as soon as it has ended."
    return answered("cancelled", [title, "", *reversed(lines), "", words], trigger)


def _last_first(found: Sequence[Found]) -> list[Found]:
    by_key = {item.record.run_key: item for item in found}
    return [by_key[record.run_key] for record in last_first([item.record for item in found])]


def _ended_already(record: RunRecord, trigger: str, world: World) -> Answer:
    """There is nothing left to end."""
    title = f"run {code(record.run_key[:8])} has ended: it {headline(record, world.clock.now())}"
    step = f"`{world.settings.voice.word} status` lists the runs."
    return refusal(title, "no-such-run", "", step, trigger, UNUSABLE, Exit.MALFORMED, lead="Not done")


def _not_one(command: Cancel, wanted: Sequence[Found], trigger: str, world: World) -> Answer:
    """None of the active runs is meant, or more than one."""
    of = f"profile {code(command.profile)}" if command.profile is not None else ""
    return which([item.record for item in wanted], command.run, trigger, world, "cancel", of)


def end_run(item: Found, why: str, policy: Policy, world: World) -> str | None:
    """Ends one run: its job, or its place in the queue. None when its job is being ended, else what became of it, in Markdown."""
    try:
        with _open(world, item.profile) as cluster:
            # Whoever laid it into the queue may have died before the record said so.
            if item.record.state in (State.QUEUED, State.SUBMITTING):
                dropped = drop(item.record, why, world, cluster)
                if dropped is not None:
                    report(world, cluster, policy, Seen(dropped, ""))
                    return "was taken out of the queue"
            said = cluster.cancel(item.record.run_key, why)
            if said.others:
                report(world, cluster, policy, Seen(left(item.record, why, world), ""))
                return f"was given up; its job goes on, for {goes_on_for(said.others)}"
    except DispatchError as error:
        return f"could not be ended: {neutralise(error.cause, 300)}"
    return None if said.status == 0 else f"could not be ended: {neutralise(said.stderr or said.stdout, 500)}"


def left(record: RunRecord, why: str, world: World) -> RunRecord:
    """The end of a run whose job goes on for others."""
    return record.model_copy(
        update={"state": State.CANCELLED, "reason": why, "given_up": why, "evidence": LEFT, "ended_at": world.clock.now()}
    )


def goes_on_for(others: Sequence[str]) -> str:
    """Whose job it is now, in Markdown."""
    return f"run{'s' if len(others) > 1 else ''} {', '.join(f'`{key[:8]}`' for key in others)}"


def which(found: Sequence[RunRecord], wanted: str | None, trigger: str, world: World, verb: str, of: str = "") -> Answer:
    """There is no such run, or more than one. `of` says in Markdown whose runs were looked through, where it was not all."""
    word = world.settings.voice.word
    all_of_them = "could be meant" if verb == "baseline accept" else "are active"
    title, words = f"{len(found)} runs {'begin with ' + code(wanted) if wanted else all_of_them}", ""
    step = f"Name one{f', or end them all: `{word} cancel all`' if verb == 'cancel' and not wanted else ''}."
    if found:
        words = "\n".join(f"- `{word} {verb} {record.run_key[:8]}` ({record.profile} / {record.name})" for record in found[:20])
    else:
        missing = f"begins with {code(wanted)}" if wanted else f"with {of} is active" if of else "is active"
        title = f"no run of this pull request {missing}" if wanted or verb == "cancel" else "this pull request has no runs yet"
        step = f"`{word} status` lists the runs."
    return refusal(title, "no-such-run", words, step, trigger, UNUSABLE, Exit.MALFORMED, lead="Not done")


# --------------------------------------------------------------------------- look


def runs_table(records: Sequence[RunRecord], world: World) -> list[str]:
    """Records → Markdown lines, newest first."""
    now = world.clock.now()
    if not records:
        return ["### No runs yet", "", f"`{world.settings.voice.help}` says how to start one."]
    return [
        "### Runs",
        "",
        "| | run | what | commit | state | asked | |",
        "|---|---|---|---|---|---|---|",
        *(_row(record, world) for record in sorted(records, key=lambda record: record.asked_at, reverse=True)),
        "",
        f"<sub>As last reported, {clock(now, now)}</sub>",
    ]


def _row(record: RunRecord, world: World) -> str:
    now = world.clock.now()
    what = f"`{record.profile}` / `{record.name}`" + "".join(f" {code(item)}" for item in record.overrides)
    waits = f" ({neutralise(record.reason, 160)})" if record.reason and record.state in (State.QUEUED, State.PENDING) else ""
    asked = f"{clock(record.asked_at, now)} by {code(record.actor)}"
    commit = f"`{record.sha[:7]}`{' + changes' if record.uncommitted else ''}"
    return (
        f"| {icon(record)} | `{world.settings.voice.key(record.run_key)}` | {what} | {commit} "
        f"| {neutralise(headline(record, now))}{waits} | {asked} | {links(record)} |"
    )


def show_log(world: World, command: Logs, runs: Sequence[Found], trigger: str) -> Answer:
    """The last lines of a run's log, or of one of its tasks, masked and disarmed: of the named run, else of the newest one."""
    wanted = [item for item in runs if item.record.run_key.startswith(command.run or "")]
    if not wanted or (len(wanted) > 1 and command.run):
        return which([item.record for item in wanted], command.run, trigger, world, "logs")
    item = wanted[-1]
    record = item.record
    with _open(world, item.profile) as cluster:
        part = record.log_part if command.task is None else command.task
        files = cluster.fetch(record.run_key, -4 * LOG_BYTES, 4 * LOG_BYTES, 0, part=part)
    text = redact(files.log.decode("utf-8", "replace"), world.settings.to_hide) if files else ""
    lines = text.splitlines()[-command.lines :]
    shown = "\n".join(lines)
    cut = ""
    if len(shown.encode()) > LOG_BYTES:
        end = shown.encode()[-LOG_BYTES:].decode("utf-8", "ignore")
        shown = end.partition("\n")[2].strip("\n") or end  # whole lines, unless there is only a part of one
        cut = f", as many as a comment holds of the last {command.lines}"
    link = f" · [the whole log]({record.log_url})" if record.log_url else ""
    count = len(shown.splitlines())
    of = "" if command.task is None else f"{part_name(record, command.task)} of "
    head = f"### {icon(record)} {world.settings.voice.name} · {record.profile} · log of {of}run `{record.run_key[:8]}`"
    if not shown.strip():
        nothing = _nothing_of(record) if command.task is None else no_log_of(record, command.task)
        return answered("logs", [head, "", nothing], trigger)
    body = fence(shown)
    return answered("logs", [head, "", f"The last {'line' if count == 1 else f'{count} lines'}{cut}{link}", "", body], trigger)


def _nothing_of(record: RunRecord) -> str:
    """Why there is no log to show."""
    if not record.state.ended:
        return "It has written nothing yet."
    of = f" (they are those of run `{record.same_as[:8]}`)" if record.same_as else ""
    return f"It wrote nothing, or its files are no longer on the cluster{of}."


def part_name(record: RunRecord, number: int) -> str:
    """A part of a job, in words: `task 3`, `component 0`; of a run that goes on in several, `job 12345`."""
    if record.log_part is not None:
        return f"job {number}"
    return f"{'component' if record.parts > record.resources.tasks else 'task'} {number}"


def no_log_of(record: RunRecord, number: int) -> str:
    """Why there is nothing to show of one part of a job."""
    if record.log_part is not None:
        jobs = ", ".join(f"`{job}`" for job in (*(job.job_id for job in record.earlier_jobs), record.job_id))
        return f"Job {number} has written nothing yet, or is none of the run's: {jobs}."
    if record.parts == record.resources.tasks == 1:
        return "The run may have no such task: it is one job, not an array of several. Without `task=` its log is shown."
    return f"{part_name(record, number).capitalize()} has written nothing yet, or there is none such: the job has {record.parts} parts."


@contextmanager
def _open(world: World, profile: Profile) -> Iterator[Cluster]:
    cluster = world.connect(profile)
    try:
        yield cluster
    finally:
        cluster.close()
