"""`no_worse_than: merge-base` with a GitHub that speaks real HTTP: where a pull request left its branch, and what the queue builds on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dispatcher.baseline import history_name, line_of
from dispatcher.configuration import read_policy
from dispatcher.effects.github import GitHubForge
from dispatcher.errors import ForgeError
from dispatcher.judging import judged
from dispatcher.record import Queued, RunRecord, Target
from dispatcher.slurm import State
from tests.fakes import NOON, POLICY, Fakes, run_record
from tests.github_server import GitHubServer

RULES = "\n    metrics:\n      loss: { no_worse_than: merge-base, tolerance: 2% }"
WITH_RULES = POLICY.replace("default: { script: train.py }", f"default:\n    script: train.py{RULES}")
COMPARE = r"/compare/"


def test_the_merge_base_as_github_says_it(github: GitHubServer) -> None:
    repo = github.create_repository("org/repo", {"train.py": "1"})
    parted = repo.sha("main")
    repo.commit("feature", {"train.py": "2"})
    pull = repo.open_pull("feature", author="alice")
    later = repo.commit("main", {"other.py": "3"})
    queued = repo.queue(pull)

    fakes = Fakes(WITH_RULES)
    policy = read_policy(fakes.world)
    forge = GitHubForge("org/repo", github.token, github.api_url, clock=fakes.clock, timeout=5.0)
    world = replace(fakes.world, forge=forge)
    name = history_name("org/repo", "cluster", "default")
    measured = {parted: 1.0, later: 9.0}
    runs = [run_record(run_key=f"{at:016x}", sha=sha, results={"loss": loss}) for at, (sha, loss) in enumerate(measured.items())]
    fakes.cluster.remembered[name] = [line_of(run, NOON) for run in runs]

    def ended(sha: str, loss: float, target: Target) -> RunRecord:
        now = fakes.clock.now()
        given = {"state": State.SUCCEEDED, "asked_at": now, "ended_at": now, "results": {"loss": loss}}
        return run_record(sha=sha, target=target, **given)

    of_pull = Target(repository="org/repo", pull=pull.number)
    entry = Queued(head_ref=f"refs/heads/gh-readonly-queue/main/pr-{pull.number}-{later}", base_ref="refs/heads/main")
    for sha, target, base, value in (
        (pull.head_sha, of_pull, parted, 1.0),
        (queued, Target(repository="org/repo", merge_queue=entry), later, 9.0),
        (queued, Target(repository="org/repo", merge_queue=entry.model_copy(update={"base_sha": later})), later, 9.0),
    ):
        good, bad = (judged(ended(sha, share * value, target), world, fakes.cluster, policy) for share in (1.01, 1.5))
        assert good.ended_well
        assert bad.results_problem.startswith(f"loss {1.5 * value:g} is 50 % above the merge base's run ({base[:7]}), {value:g}")

    github.fail("GET", COMPARE, 503, times=99)
    record = ended(pull.head_sha, 1.5, of_pull)
    with pytest.raises(ForgeError):
        judged(record, world, fakes.cluster, policy)
    github.faults.clear()
    assert judged(record, world, fakes.cluster, policy).results_problem, "the next look has an answer, and it is the same"
