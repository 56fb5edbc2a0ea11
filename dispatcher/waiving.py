"""`override <gate> reason="…"` → a recorded, visible, expiring exception for the head; and what the sweep does when it has expired."""

from __future__ import annotations

from datetime import timedelta

from dispatcher.answer import Answer
from dispatcher.authorise import Denial, Facts, Grant, may_waive
from dispatcher.errors import DispatchError
from dispatcher.gatekeeper import evaluate_gate
from dispatcher.phrases import clock, duration
from dispatcher.policy import Policy
from dispatcher.publish import publish_check
from dispatcher.refusals import answered, denied
from dispatcher.untrusted import code, neutralise
from dispatcher.verbs import Waive
from dispatcher.waiver import WAIVED, WAIVER_NAME, WaiverRecord, waiver_check, waiver_on
from dispatcher.world import World


def waive(command: Waive, grant: Grant, facts: Facts, policy: Policy, world: World) -> Answer:
    """Records the exception in a check, judges the gate again, and labels the pull request."""
    rule = may_waive(facts, policy, command.gate)
    if isinstance(rule, Denial):
        return denied(rule, grant.trigger, lead="Not done")
    assert world.forge is not None and grant.number is not None, "exceptions are made on pull requests"  # noqa: PT018
    assert policy.gate.override is not None, "may_waive has looked"
    now = world.clock.now()
    until = now + timedelta(seconds=policy.gate.override.expires)
    waiver = WaiverRecord(gate=command.gate, sha=grant.sha, actor=grant.actor, reason=command.reason, made_at=now, expires_at=until)
    # The label comes first: an exception without it would never be found when it has expired.
    world.forge.create_label(WAIVED)
    world.forge.add_label(grant.number, WAIVED.name)
    known = waiver_on(world.forge.find_checks(grant.sha, WAIVER_NAME), command.gate, grant.sha, now)
    if known is None or (known.actor, known.reason) != (waiver.actor, waiver.reason):
        publish_check(world.forge, waiver_check(waiver))
    else:
        waiver = known  # The same words delivered again do not make it hold longer.
    evaluate_gate(world, policy, grant.number)
    lines = [
        f"### ⚠️ {code(waiver.gate)} is overridden for `{waiver.sha[:12]}`",
        "",
        f"By {code(waiver.actor)}, until {clock(waiver.expires_at, now)} ({duration((waiver.expires_at - now).total_seconds())}):",
        "",
        f"> {neutralise(waiver.reason, 300)}",
        "",
        "A new commit needs its own. What the runs say stays visible in the check.",
    ]
    return answered("overridden", lines, grant.trigger)


def judge_expired(world: World, policy: Policy) -> None:
    """The sweep's part: the gate of every pull request whose exception no longer holds is judged again. One request when there is none."""
    if world.forge is None or policy.gate.override is None:
        return
    for number in world.forge.labelled(WAIVED.name):
        try:
            pull = world.forge.pull(number)
            checks = world.forge.find_checks(pull.head_sha, WAIVER_NAME) if pull else ()
            if pull is None or waiver_on(checks, "dispatch/gate", pull.head_sha, world.clock.now()) is not None:
                continue
            evaluate_gate(world, policy, number)
            world.forge.remove_label(number, WAIVED.name)
        except DispatchError as error:
            world.say(f"The gate of #{number} could not be judged again: {error.cause} {error.next_step}")
