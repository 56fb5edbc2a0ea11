"""The story in one process: GitHub is real HTTP, the cluster the real remote program in front of pretended Slurm commands.

Only time is not real, so that waiting takes none, and NeMo-Run is left out. A delivery takes a fifth of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dispatcher.action import blank_outputs
from dispatcher.configuration import read_policy
from dispatcher.effects.archive import GitArchive
from dispatcher.effects.assembly import for_github
from dispatcher.effects.clock import SystemClock
from dispatcher.effects.github import GitHubForge
from dispatcher.effects.runner import Runner
from dispatcher.errors import DispatchError
from dispatcher.event import parse_event
from dispatcher.flow import handle
from dispatcher.inputs import read_inputs
from dispatcher.ports import Clock
from dispatcher.watching import watch
from dispatcher.world import Outcome, World
from tests.fakes import FakeClock, FakeCompiler, Trace
from tests.github_server import GitHubServer
from tests.integration.clusters import environment, local
from tests.rig.pretend_slurm import PretendSlurm
from tests.rig.sshd import Sshd
from tests.stage import Stage


@dataclass(frozen=True)
class Scene:
    """A stage whose cluster is pretended, and one archive of its commits for all deliveries."""

    stage: Stage
    slurm: PretendSlurm
    archive: GitArchive

    def world(self, clock: Clock) -> World:
        """The world of one process: real GitHub requests, a real shell in front of pretended Slurm commands."""
        stage = self.stage
        forge = GitHubForge(stage.repo.full_name, stage.server.token, stage.server.api_url, clock=clock)
        return replace(
            for_github(read_inputs(stage.environment()), Runner(None, None, True), "main"),
            forge=forge,
            clock=clock,
            compiler=FakeCompiler(Trace()),
            archive=lambda: self.archive,
            connect=lambda profile: local(stage.job_dir, "slurm", environment(self.slurm.bin)),
            read_config=lambda path: forge.read_text(path, "main"),
            list_config=lambda folder: forge.list_files(folder, "main"),
            say=lambda line: None,
        )

    def deliver(self, event: Mapping[str, Any], clock: Clock | None = None) -> Outcome:
        """One delivery, as in a process of its own. Anything else that it raised would have been a crash."""
        world = self.world(clock or FakeClock(datetime.now(timezone.utc)))
        try:
            return handle(parse_event("issue_comment", event), world)
        except DispatchError as error:  # as `cli.py` tells it: in the step's log and outputs, for there is no way to GitHub
            return Outcome(error.exit, blank_outputs("refused", error.code), error.cause)

    def sweep(self) -> Outcome:
        """One sweep."""
        world = self.world(SystemClock())
        return watch(world, read_policy(world))

    def jobs(self, key: str) -> list[str]:
        """The jobs that were submitted for a run."""
        jobs = (self.slurm.folder / "jobs").iterdir()
        return [job.name for job in jobs if job.read_text().startswith(f"dispatch-{key}|")]

    def asked(self, body: str = "/train steps=1") -> dict[str, Any]:
        """Somebody asks for a run."""
        event: dict[str, Any] = self.stage.server.comment_event(self.stage.pull, self.stage.pull.comment(body))
        return event


def make_scene(server: GitHubServer, sshd: Sshd, folder: Path) -> Scene:
    """A stage of its own; `sshd` is never spoken to."""
    stage = Stage(server, sshd, folder)
    stage.repo.commit("main", {"profiles/cluster.yaml": stage.profile + "tunnel: local\n"})
    server.remaining = 1_000_000
    return Scene(stage, PretendSlurm(folder / "slurm"), GitArchive(f"{server.url}/org/repo", server.token))
