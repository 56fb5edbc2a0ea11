"""A pull request → its required runs, what the ledgers say about them, and the check `dispatch/gate` on the head."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from dispatcher.configuration import read_profile
from dispatcher.connections import Ledger, ledger_of
from dispatcher.errors import DispatchError, Exit
from dispatcher.event import MergeGroupEvent
from dispatcher.gate import (
    Fail,
    Pass,
    Pending,
    Requirement,
    Unstarted,
    Verdict,
    Waived,
    judge,
    may_be_required,
    required_runs,
    without_hope,
)
from dispatcher.gatereport import GATE_NAME, gate_check, gate_lines
from dispatcher.keys import commit_tag
from dispatcher.policy import Policy
from dispatcher.ports import Check, PullRequest
from dispatcher.profile import Profile, UnknownProfile
from dispatcher.publish import publish_check
from dispatcher.record import RunRecord
from dispatcher.salvage import readable, unclear
from dispatcher.waiver import WAIVER_NAME, WaiverRecord, waiver_on
from dispatcher.world import Outcome, World, bug_words, outcome

# GitHub lists no more files of a pull request: https://docs.github.com/en/rest/pulls/pulls#list-pull-requests-files
LISTED_FILES = 3000
_NOTHING: Unstarted = MappingProxyType({})


def evaluate_gate(world: World, policy: Policy, number: int, known: Iterable[RunRecord] = ()) -> Outcome:
    """Judges a pull request's head and says so in the check; `known` are records that were read already and are newer than the ledger's."""
    assert world.forge is not None, "a gate is a check on GitHub"
    pull = world.forge.pull(number)
    if pull is None:
        return outcome("refused", "pull-gone", Exit.GITHUB, f"There is no pull request #{number}.")
    waiver, requirements = _waiver(world, policy, pull.head_sha), _required_for(world, policy, pull)
    return _judged(world, policy, requirements, pull.head_sha, known, waiver, pull=pull)


def _with_others(world: World, policy: Policy, pull: PullRequest, own: tuple[Requirement, ...]) -> tuple[Requirement, ...]:
    """What all open pull requests with this very head need. A check is the commit's: what passes for one of them is green for all.

    A pull request that goes elsewhere by now, or bears other labels, counts as another one.
    """
    assert world.forge is not None
    found = {(requirement.profile, requirement.recipe): requirement for requirement in own}
    for other in world.forge.open_pulls_at(pull.head_sha):
        if (other.number, other.base_ref, other.labels) == (pull.number, pull.base_ref, pull.labels):
            continue
        for requirement in _required_for(world, policy, other):
            because = f"#{other.number} into {other.base_ref}: {requirement.because}"
            found.setdefault((requirement.profile, requirement.recipe), replace(requirement, because=because))
    return tuple(found.values())


def _required_for(world: World, policy: Policy, pull: PullRequest) -> tuple[Requirement, ...]:
    """The runs that a pull request needs, by its files, its labels and where it goes."""
    assert world.forge is not None
    changed = world.forge.changed_files(pull.number) if any(rule.paths for rule in policy.gate.required) else ()
    return required_runs(policy, pull.base_ref, changed if len(changed) < LISTED_FILES else None, pull.labels)


def judge_begun(world: World, policy: Policy, begun: Iterable[RunRecord]) -> None:
    """The gates that may wait for one of these runs say now that it goes on, not that it has to be started; a green one waits again.

    What the runs have to do with no gate asks GitHub nothing. Those of a merge queue are told where they are started.
    """
    judge_ended(world, policy, [record for record in begun if record.target.pull is not None and may_be_required(policy, record)])


def judge_ended(world: World, policy: Policy, ended: Sequence[RunRecord]) -> None:
    """The gate of every pull request, and of every entry of a merge queue, of which a run has ended; each once.

    That one cannot be written is told; it does not change how the run ended, and the others are judged all the same.
    """
    if world.forge is None or not policy.gate.required:
        return
    judged: set[object] = set()
    for record in ended:
        target = record.target
        subject = target.pull or (record.sha if target.merge_queue else None)
        if subject is None or subject in judged:
            continue
        judged.add(subject)
        known = [other for other in ended if other.sha == record.sha or (target.pull and other.target.pull == target.pull)]
        try:
            if target.pull is not None:
                evaluate_gate(world, policy, target.pull, known)
            elif target.merge_queue is not None:
                entry = target.merge_queue
                event = MergeGroupEvent(target.repository, record.sha, entry.head_ref, entry.base_ref, "", "")
                evaluate_merge_group(world, policy, event, known)
        except DispatchError as error:
            world.say(f"The gate of {record.sha[:12]} could not be written: {error.cause} {error.next_step}")
        except Exception as error:
            world.say(f"The gate of {record.sha[:12]} could not be written. This is a bug: {bug_words(error, world)}.")


def evaluate_merge_group(
    world: World, policy: Policy, event: MergeGroupEvent, known: Iterable[RunRecord] = (), unstarted: Unstarted = _NOTHING
) -> Outcome:
    """The queue's own commit needs the check too, or the queue waits until it times out. Its tree is a new one: runs count on this SHA.

    Where the policy runs nothing in the queue, it is the pull request's head that is judged. `unstarted`: what could not be.
    """
    assert world.forge is not None
    number = _queued_pull(event)
    pull = world.forge.pull(number) if policy.reuse.merge_queue == "never" and number is not None else None
    if pull is not None:
        waiver, requirements = _waiver(world, policy, pull.head_sha), _required_for(world, policy, pull)
        return _judged(world, policy, requirements, pull.head_sha, known, waiver, _Queued(event.head_sha, judged_by_head=True))
    waiver, queued = _waiver_of_queued(world, policy, event), _Queued(event.head_sha, unstarted=unstarted)
    return _judged(world, policy, required_for_queue(policy, event), event.head_sha, known, waiver, queued)


def refuse_merge_group(world: World, event: MergeGroupEvent, reason: str, words: str) -> None:
    """The queue's commit cannot be judged: the gate fails with the reason, or the queue would wait for a check that never comes."""
    assert world.forge is not None
    title = f"could not be judged: {reason}"
    check = Check(GATE_NAME, event.head_sha, f"gate-{event.head_sha}", "completed", "failure", title, words)
    try:
        publish_check(world.forge, check)
    except DispatchError as error:
        world.say(f"The gate of {event.head_sha[:12]} could not be written: {error.cause} {error.next_step}")


def required_for_queue(policy: Policy, event: MergeGroupEvent) -> tuple[Requirement, ...]:
    """The runs that the queue's commit needs: its paths are several pull requests', so every rule for the branch counts."""
    return required_runs(policy, event.base_ref.removeprefix("refs/heads/"), None)


def _waiver(world: World, policy: Policy, sha: str) -> WaiverRecord | None:
    """The exception that holds now; GitHub is asked only where the policy has exceptions."""
    if world.forge is None or policy.gate.override is None or not policy.gate.required:
        return None
    return waiver_on(world.forge.find_checks(sha, WAIVER_NAME), GATE_NAME, sha, world.clock.now())


def _waiver_of_queued(world: World, policy: Policy, event: MergeGroupEvent) -> WaiverRecord | None:
    """The exception of the pull request that this commit of the queue adds: else it could never be merged by the queue.

    The pull requests before it have commits and gates of their own.
    """
    number = _queued_pull(event)
    if number is None or policy.gate.override is None or world.forge is None:
        return None
    pull = world.forge.pull(number)
    return _waiver(world, policy, pull.head_sha) if pull is not None else None


def _queued_pull(event: MergeGroupEvent) -> int | None:
    """The pull request that this commit of the queue adds: the branch is `gh-readonly-queue/<base>/pr-<number>-<sha>`."""
    named = re.search(r"/pr-([1-9][0-9]{0,9})-[0-9a-f]{7,64}$", event.head_ref)
    return int(named[1]) if named else None


@dataclass(frozen=True)
class _Queued:
    """The queue's commit, which gets the verdict; where that is the one on its pull request's head, nothing runs on it: no waiting."""

    sha: str
    judged_by_head: bool = False
    unstarted: Unstarted = field(default_factory=dict)


def _judged(
    world: World,
    policy: Policy,
    requirements: tuple[Requirement, ...],
    sha: str,
    known: Iterable[RunRecord],
    waiver: WaiverRecord | None,
    queued: _Queued | None = None,
    pull: PullRequest | None = None,
) -> Outcome:
    """The verdict, written into the check. Of a pull request's head: before that is green, whatever else needs the check counts, too."""
    assert world.forge is not None
    known = tuple(known)
    records, silent = _records(world, policy, requirements, sha, known)
    verdict = judge(requirements, records, sha, waiver)
    if pull is not None and policy.gate.required and isinstance(verdict, Pass):
        every = _with_others(world, policy, pull, requirements)
        if every != requirements:
            records, silent = _records(world, policy, every, sha, known)
            verdict = judge(every, records, sha, waiver)
    by_head = queued is not None and queued.judged_by_head
    if by_head and isinstance(verdict, Pending):
        verdict = Fail(verdict.lines)
    if queued is not None:
        verdict = without_hope(verdict, queued.unstarted)
    # Nobody can give a command for the queue's own commit.
    word = world.settings.voice.word if queued is None or by_head else ""
    lines = gate_lines(verdict, silent, word, sha if by_head else "")
    ref = publish_check(world.forge, gate_check(verdict, queued.sha if queued else sha, lines))
    return _outcome(verdict, "\n".join(lines), ref.url)


def _records(
    world: World, policy: Policy, requirements: tuple[Requirement, ...], sha: str, known: Iterable[RunRecord]
) -> tuple[list[RunRecord], list[str]]:
    """Every ledger's records of this commit; a ledger that cannot be asked is named, and its runs count as not there."""
    found = {record.run_key: record for record in known}
    silent: list[str] = []
    asked: set[Ledger] = set()
    for name in dict.fromkeys(profile for requirement in requirements for profile in requirement.profiles):
        try:
            resolved = read_profile(world, policy, name)
            if isinstance(resolved, UnknownProfile):
                silent.append(f"profile {name} does not exist")
                continue
            place = ledger_of(resolved.profile)
            if place in asked:
                continue
            asked.add(place)
            records, problem = _of_commit(world, resolved.profile, sha)
            silent += [f"of profile {name} one cannot be read: {problem}"] if problem else []
            for record in records:
                found.setdefault(record.run_key, record)
        except DispatchError as error:
            silent.append(f"profile {name}: {error.cause}")
    return [record for record in found.values() if record.target.repository.lower() == world.settings.repository.lower()], silent


def _of_commit(world: World, profile: Profile, sha: str) -> tuple[list[RunRecord], str]:
    """The commit's records, and what is wrong with one that cannot be read: it hides nothing of the others.

    Where it still says which run it is, that run is one of unknown state: an older one must not pass in its place.
    """
    cluster = world.connect(profile)
    try:
        texts = cluster.find(commit_tag(sha))
    finally:
        cluster.close()
    records, problem = readable(texts)
    return [*records, *(unclear(texts) if problem else ())], problem


def _outcome(verdict: Verdict, summary: str, url: str) -> Outcome:
    match verdict:
        case Pass():
            return outcome("gate", "passed", Exit.OK, summary, **{"state": "success", "log-url": url})
        case Waived():
            return outcome("gate", "overridden", Exit.OK, summary, **{"state": "success", "log-url": url})
        case Pending():
            return outcome("gate", "pending", Exit.PENDING, summary, **{"state": "pending", "log-url": url})
        case Fail():
            return outcome("gate", "failed", Exit.RUN_FAILED, summary, **{"state": "failure", "log-url": url})
