"""A pull request → its required runs, what the ledgers say about them, and the check `dispatch/gate` on the head."""

from __future__ import annotations

from collections.abc import Iterable

from dispatcher.configuration import read_profile
from dispatcher.errors import DispatchError, Exit
from dispatcher.event import MergeGroupEvent
from dispatcher.gate import Fail, Pass, Pending, Requirement, Verdict, judge, required_runs
from dispatcher.gatereport import gate_check, gate_lines
from dispatcher.plan import commit_tag
from dispatcher.policy import Policy
from dispatcher.profile import Profile, UnknownProfile
from dispatcher.publish import publish_check
from dispatcher.record import RunRecord, parse_record
from dispatcher.world import Outcome, World, outcome

# GitHub lists no more files of a pull request: https://docs.github.com/en/rest/pulls/pulls#list-pull-requests-files
LISTED_FILES = 3000


def evaluate_gate(world: World, policy: Policy, number: int, known: Iterable[RunRecord] = ()) -> Outcome:
    """Judges a pull request's head and says so in the check; `known` are records that were read already and are newer than the ledger's."""
    assert world.forge is not None, "a gate is a check on GitHub"
    pull = world.forge.pull(number)
    if pull is None:
        return outcome("refused", "pull-gone", Exit.GITHUB, f"There is no pull request #{number}.")
    changed = world.forge.changed_files(number) if any(rule.paths for rule in policy.gate.required) else ()
    requirements = required_runs(policy, pull.base_ref, changed if len(changed) < LISTED_FILES else None)
    return _judged(world, policy, requirements, pull.head_sha, known)


def evaluate_merge_group(world: World, policy: Policy, event: MergeGroupEvent) -> Outcome:
    """The queue's own commit needs the check too, or the queue waits until it times out. Its tree is a new one: runs count on this SHA."""
    base = event.base_ref.removeprefix("refs/heads/")
    return _judged(world, policy, required_runs(policy, base, None), event.head_sha, ())


def _judged(world: World, policy: Policy, requirements: tuple[Requirement, ...], sha: str, known: Iterable[RunRecord]) -> Outcome:
    assert world.forge is not None
    records, silent = _records(world, policy, requirements, sha, known)
    verdict = judge(requirements, records, sha)
    lines = gate_lines(verdict, silent, world.settings.voice.word)
    ref = publish_check(world.forge, gate_check(verdict, sha, lines))
    return _outcome(verdict, "\n".join(lines), ref.url)


def _records(
    world: World, policy: Policy, requirements: tuple[Requirement, ...], sha: str, known: Iterable[RunRecord]
) -> tuple[list[RunRecord], list[str]]:
    """Every ledger's records of this commit; a ledger that cannot be asked is named, and its runs count as not there."""
    found = {record.run_key: record for record in known}
    silent: list[str] = []
    asked: set[tuple[str, str]] = set()
    for name in dict.fromkeys(requirement.profile for requirement in requirements):
        try:
            resolved = read_profile(world, policy, name)
            if isinstance(resolved, UnknownProfile):
                silent.append(f"profile {name} does not exist")
                continue
            place = (str(getattr(resolved.profile, "host", "")), resolved.profile.job_dir or "")
            if place in asked:
                continue
            asked.add(place)
            for record in _of_commit(world, resolved.profile, sha):
                found.setdefault(record.run_key, record)
        except DispatchError as error:
            silent.append(f"profile {name}: {error.cause}")
    return [record for record in found.values() if record.target.repository.lower() == world.settings.repository.lower()], silent


def _of_commit(world: World, profile: Profile, sha: str) -> list[RunRecord]:
    cluster = world.connect(profile)
    try:
        return [parse_record(text) for text in cluster.find(commit_tag(sha))]
    finally:
        cluster.close()


def _outcome(verdict: Verdict, summary: str, url: str) -> Outcome:
    match verdict:
        case Pass():
            return outcome("gate", "passed", Exit.OK, summary, **{"state": "success", "log-url": url})
        case Pending():
            return outcome("gate", "pending", Exit.PENDING, summary, **{"state": "pending", "log-url": url})
        case Fail():
            return outcome("gate", "failed", Exit.RUN_FAILED, summary, **{"state": "failure", "log-url": url})
