"""Commands and who gave them → the facts that the decision takes, looked up at GitHub: no others, and each once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dispatcher.authorise import Asked, AskedBy, Facts, needed_facts, needed_teams
from dispatcher.policy import Policy
from dispatcher.staging import stages_of
from dispatcher.world import World


def gather_facts(commands: Sequence[Asked], event: AskedBy, policy: Policy, world: World) -> Facts:
    """The facts for all commands of one event: they are about one person and one pull request. Each lookup is one request."""
    needed = needed_facts(commands[0], event)
    forge = world.forge
    if forge is None:
        return Facts(actor=needed.actor or "")
    facts = Facts(
        actor=needed.actor or "",
        role=forge.role(needed.actor) if needed.actor and needed.role else None,
        pull=forge.pull(needed.pull) if needed.pull is not None else None,
        head_sha=forge.commit_sha(needed.ref) if needed.ref else None,
    )
    wanted = [item for command in commands for item in (command, *stages_of(command, policy))]
    return with_teams(facts, [team for command in wanted for team in needed_teams(command, facts, policy)], world)


def with_teams(facts: Facts, teams: Iterable[str], world: World) -> Facts:
    """The same facts, knowing besides which of these teams the actor is in."""
    if world.forge is None:
        return facts
    member = {team for team in dict.fromkeys(teams) if team not in facts.teams and world.forge.team_member(*_parts(team), facts.actor)}
    return replace(facts, teams=facts.teams | member)


def _parts(team: str) -> tuple[str, str]:
    org, _, name = team.partition("/")
    return org, name
