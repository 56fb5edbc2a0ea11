"""What may be asked of runs that exist: end one, list a pull request's."""

from __future__ import annotations

from collections.abc import Callable

from dispatcher.answer import BROKEN, UNUSABLE, Answer, refusal
from dispatcher.authorise import Denial, Grant
from dispatcher.configuration import profile_names, read_profile
from dispatcher.errors import DispatchError, Exit
from dispatcher.phrases import clock
from dispatcher.plan import pull_tag
from dispatcher.policy import Policy
from dispatcher.profile import Profile, UnknownProfile
from dispatcher.record import RunRecord, parse_record
from dispatcher.refusals import answered, denied
from dispatcher.report import headline
from dispatcher.untrusted import code, neutralise
from dispatcher.world import World


def watched_profiles(world: World, policy: Policy) -> list[tuple[str, Profile]]:
    """One profile for each ledger there is: those that the policy names, else every one that has a file; unusable ones are told about."""
    names = policy.watch.profiles or tuple(
        dict.fromkeys([*profile_names(world), *([policy.default_profile] if policy.default_profile else [])])
    )
    found: dict[tuple[str, str, str], tuple[str, Profile]] = {}
    for name in names:
        try:
            resolved = read_profile(world, policy, name)
        except DispatchError as error:
            world.say(f"Profile {name} is left out: {error.cause}")
            continue
        if isinstance(resolved, UnknownProfile):
            world.say(f"Profile {name} is left out: there is no such profile.")
            continue
        profile = resolved.profile
        place = (profile.executor, str(getattr(profile, "host", "") or ""), profile.job_dir or "")
        found.setdefault(place, (name, profile))
    return list(found.values())


def cancel_run(world: World, policy: Policy, grant: Grant, wanted: str | None, may: Callable[[str], str | Denial]) -> Answer:
    """Ends one run of this pull request: the one whose key begins as given, or the only active one.

    Who asked for a run may end it; anybody else must be admitted to its profile (`may`).
    """
    candidates = [
        (profile, record)
        for profile, record in _records(world, policy, grant)
        if not record.state.ended and record.run_key.startswith(wanted or "")
    ]
    if len(candidates) != 1:
        return _which(world, grant, wanted, [record for _, record in candidates])
    profile, record = candidates[0]
    refused = may(record.profile) if record.actor != grant.actor else ""
    if isinstance(refused, Denial):
        return denied(refused, grant.trigger)
    cluster = world.connect(profile)
    try:
        said = cluster.cancel(record.run_key)
    finally:
        cluster.close()
    if said.status != 0:
        words = neutralise(said.stderr or said.stdout, 500)
        return refusal("the job could not be ended", "cancel-refused", words, "", grant.trigger, BROKEN, Exit.CLUSTER)
    title = f"### 🛑 Job {record.job_id} ({record.profile} / {record.recipe}) is being ended"
    return answered("cancelled", [title, "", "Its own comment will say so at the next look."], grant.trigger)


def _which(world: World, grant: Grant, wanted: str | None, found: list[RunRecord]) -> Answer:
    """There is no such run, or more than one."""
    voice = world.settings.voice
    title = f"{len(found)} runs of this pull request match"
    step = "Name one: " + ", ".join(f"`{voice.cancel(record.run_key)}` ({record.profile} / {record.recipe})" for record in found)
    if not found:
        title = f"no run of this pull request {f'begins with {code(wanted)}' if wanted else 'is active'}"
        step = f"`{voice.word} status` lists them."
    return refusal(title, "no-such-run", "", step, grant.trigger, UNUSABLE, Exit.MALFORMED)


def list_runs(world: World, policy: Policy, grant: Grant) -> Answer:
    """All runs of this pull request, newest first, one table."""
    return answered("status", runs_table([record for _, record in _records(world, policy, grant)], world), grant.trigger)


def runs_table(records: list[RunRecord], world: World) -> list[str]:
    """Records → Markdown lines."""
    now = world.clock.now()
    if not records:
        return ["### No runs yet", "", f"`{world.settings.voice.help}` says how to start one."]
    rows = [
        f"| `{record.run_key[:8]}` | {record.profile} / {record.recipe} | `{record.sha[:7]}` | {neutralise(headline(record, now))} "
        f"| {clock(record.asked_at, now)} | {f'[log]({record.log_url})' if record.log_url else ''} |"
        for record in sorted(records, key=lambda record: record.asked_at, reverse=True)
    ]
    return ["### Runs", "", "| run | what | commit | state | asked | |", "|---|---|---|---|---|---|", *rows]


def _records(world: World, policy: Policy, grant: Grant) -> list[tuple[Profile, RunRecord]]:
    """This pull request's runs in every ledger; one that cannot be asked is told about, and the others still answer."""
    assert grant.number is not None, "comments are on pull requests"
    tag = pull_tag(grant.repository, grant.number)
    found: list[tuple[Profile, RunRecord]] = []
    for name, profile in watched_profiles(world, policy):
        cluster = world.connect(profile)
        try:
            found += [(profile, parse_record(text)) for text in cluster.find(tag)]
        except DispatchError as error:
            world.say(f"{name}: {error.cause}")
        finally:
            cluster.close()
    return found
