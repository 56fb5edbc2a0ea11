"""`doctor`: a profile's name → what works and what does not, from the key in the environment to the partition on the cluster."""

from __future__ import annotations

from dispatcher.configuration import read_policy, read_profile
from dispatcher.doctor import Finding, findings, problems, rendered
from dispatcher.errors import DispatchError, Exit
from dispatcher.inputs import Inputs
from dispatcher.profile import SlurmProfile, UnknownProfile
from dispatcher.refusals import unknown_profile
from dispatcher.world import Outcome, World, outcome


def check_up(world: World, inputs: Inputs, name: str | None) -> Outcome:
    """Asks everything once, submits nothing. What cannot be asked because something before it failed is not asked."""
    policy = read_policy(world)
    wanted = name or policy.default_profile or "local"
    resolved = read_profile(world, policy, wanted)
    if isinstance(resolved, UnknownProfile):
        answer = unknown_profile(resolved, "doctor", world.settings.voice)
        return Outcome(answer.exit, {**answer.outputs, "comment-url": ""}, answer.summary)
    found: list[Finding] = []
    profile = resolved.profile
    cluster = world.connect(profile)
    try:
        account, partition = (profile.account, profile.partition or "") if isinstance(profile, SlurmProfile) else ("", "")
        probes = cluster.probe(account, partition)
        if isinstance(profile, SlurmProfile) and profile.tunnel == "ssh":
            found += _door(inputs)
        found += findings(resolved, probes)
    except DispatchError as error:
        found.append(Finding("problem", error.code, f"{error.cause} {error.next_step}"))
    finally:
        cluster.close()
    found.append(_github(world, inputs))
    lines = [f"{wanted} · {profile.address}", *rendered(found)]
    bad = problems(found)
    text = "```text\n" + "\n".join(lines) + "\n```"
    return outcome("checked", "problems" if bad else "healthy", Exit.CONFIG if bad else Exit.OK, text)


def _door(inputs: Inputs) -> list[Finding]:
    """What the open connection proves."""
    from dispatcher.effects.sshkeys import load_key

    given = inputs.ssh
    with_what = "with a key of the SSH agent"
    if given.key:
        key = load_key(given.key, given.passphrase, given.certificate)
        with_what = f"with {key.get_name()} {key.fingerprint}{', passphrase given' if given.passphrase else ''}"
    return [Finding("ok", "host key", "is the one that known_hosts has"), Finding("ok", "login", with_what)]


def _github(world: World, inputs: Inputs) -> Finding:
    """Whether the token may do what a run needs; without a token there is nothing to check."""
    if not (inputs.github.speaks and world.settings.repository):
        return Finding("none", "GitHub token", "none is set here; the action gets one by itself")
    from dispatcher.effects.assembly import with_forge

    try:
        forge = with_forge(inputs, world).forge
        assert forge is not None
        forge.read_text("README.md", "HEAD")
    except DispatchError as error:
        return Finding("problem", "GitHub token", f"{error.cause} {error.next_step}")
    return Finding("ok", "GitHub token", "may read the repository")
