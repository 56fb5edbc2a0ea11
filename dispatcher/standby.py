"""Stages that lie ready in a ledger's queue → which of them may not begin yet, and which never will.

A stage is queued where Slurm cannot wait for the ones before it: they are on another cluster, it runs without Slurm, or the policy's
limits decide who begins.
"""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.awaiting import Never, Ready, Standby, awaited_by
from dispatcher.grouping import read_members
from dispatcher.policy import Policy
from dispatcher.ports import Cluster
from dispatcher.record import RunRecord
from dispatcher.world import World


def stages_that_wait(queued: Sequence[RunRecord], policy: Policy, world: World, cluster: Cluster) -> dict[str, Standby | Never]:
    """By run key; who is not there waits for no stage. `queued` is in the order in which they were asked for.

    Another repository's stages are its own sweep's business: they wait here, whatever they wait for.
    """
    found: dict[str, Standby | Never] = {}
    called_off: dict[str, RunRecord] = {}
    now = world.clock.now()
    for record in queued:
        if not record.before or record.target.repository != world.settings.repository:
            continue
        group = read_members(record.before, record, cluster, policy, world)
        silent = tuple(member.stage for member in record.before if member.run_key in group.unheard)
        # What never runs has its end here and now, and so has what waits for it.
        stage = Standby(silent) if silent else awaited_by(record, {**group.records, **called_off}, now)
        if isinstance(stage, Never):
            called_off[record.run_key] = stage.told(record, now)
        if not isinstance(stage, Ready):
            found[record.run_key] = stage
    return found
