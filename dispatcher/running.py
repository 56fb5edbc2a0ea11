"""What may be asked of runs that exist: end one, list a pull request's."""

from __future__ import annotations

from collections.abc import Iterator

from dispatcher.authorise import Grant
from dispatcher.configuration import profile_names, read_profile
from dispatcher.errors import DispatchError, Exit
from dispatcher.phrases import clock
from dispatcher.plan import pull_tag
from dispatcher.policy import Policy
from dispatcher.ports import Cluster
from dispatcher.profile import Profile, UnknownProfile
from dispatcher.record import RunRecord, parse_record
from dispatcher.refusals import answered
from dispatcher.report import BROKEN, UNUSABLE, Answer, headline, refusal
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


def cancel_run(world: World, policy: Policy, grant: Grant, wanted: str | None) -> Answer:
    """Ends one run of this pull request: the one whose key begins as given, or the only active one."""
    word = world.settings.voice.word
    candidates: list[tuple[Profile, RunRecord]] = []
    for profile, cluster in _ledgers(world, policy):
        records = [parse_record(text) for text in cluster.find(_tag(grant))]
        candidates += [(profile, record) for record in records if not record.state.ended and record.run_key.startswith(wanted or "")]
    if len(candidates) != 1:
        which = f"begins with {code(wanted)}" if wanted else "is active"
        title = f"no run of this pull request {which}" if not candidates else f"{len(candidates)} runs of this pull request match"
        keys = ", ".join(
            f"`{world.settings.voice.cancel(record.run_key)}` ({record.profile} / {record.recipe})" for _, record in candidates
        )
        step = f"Name one: {keys}" if keys else f"`{word} status` lists them."
        return refusal(title, "no-such-run", "", step, grant.trigger, UNUSABLE, Exit.MALFORMED)
    profile, record = candidates[0]
    cluster = world.connect(profile)
    try:
        said = cluster.cancel(record.run_key)
    finally:
        cluster.close()
    if said.status != 0:
        words = neutralise(said.stderr or said.stdout, 500)
        return refusal("the job could not be ended", "cancel-refused", words, "", grant.trigger, BROKEN, Exit.CLUSTER)
    lines = [
        f"### 🛑 Job {record.job_id} ({record.profile} / {record.recipe}) is being ended",
        "",
        "Its own comment will say so at the next look.",
    ]
    return answered("cancelled", lines, grant.trigger)


def list_runs(world: World, policy: Policy, grant: Grant) -> Answer:
    """All runs of this pull request, newest first, one table."""
    records = [parse_record(text) for _, cluster in _ledgers(world, policy) for text in cluster.find(_tag(grant))]
    return answered("status", runs_table(records, world), grant.trigger)


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


def _ledgers(world: World, policy: Policy) -> Iterator[tuple[Profile, Cluster]]:
    for name, profile in watched_profiles(world, policy):
        cluster = world.connect(profile)
        try:
            yield profile, cluster
        except DispatchError as error:
            world.say(f"{name}: {error.cause}")
        finally:
            cluster.close()


def _tag(grant: Grant) -> str:
    assert grant.number is not None, "comments are on pull requests"
    return pull_tag(grant.repository, grant.number)
