"""Every verb and way in that starts, ends or judges something, on a real cluster: what stands in the pull request afterwards."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest

from dispatcher.errors import Exit
from tests.github_model import CheckRun
from tests.github_server import GitHubServer
from tests.rig.sshd import Sshd
from tests.stage import PROFILE, TRAIN, Ended, Stage

POLICY = """\
default_profile: cluster
forks: sha
recipes:
  default: { script: train.py, entrypoint: python3, results: results.json }
overrides: { allow: ["*", run.time, run.nodes] }
active: { profile: 1 }
profiles:
  second: { active: 8 }
limits: { nodes: 2 }
approval: { nodes: 1 }
pulls: { superseded: cancel, closed: cancel, labels: standing }
gate:
  required: [{ profile: second, recipe: default, paths: ["*.py"] }]
  override: { allow: { roles: [maintain] }, expires: 1h }
"""


@pytest.fixture
def stage(cluster_sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage whose policy lets one run of `cluster` and eight of `second` be active at once."""
    folder = tmp_path_factory.mktemp("verbs")
    profile = PROFILE.format(host=cluster_sshd.host, port=cluster_sshd.port, user=cluster_sshd.user, job_dir=folder / "jobs")
    with GitHubServer() as server:
        stage = Stage(server, cluster_sshd, folder, policy=POLICY, extra={"profiles/second.yaml": profile})
        stage.repo.add_collaborator("dana", "maintain")
        yield stage
        assert server.violations == []


def test_a_sweep_is_one_comment_with_a_table(stage: Stage) -> None:
    """Two values and one that fails: two jobs, one comment, two checks; `retry` runs the failed one again."""
    asked = stage.comment("/train profile=second steps=2,1 fail=no")
    assert (asked.code, asked.outputs["decision"]) == (Exit.OK, "run"), asked.stderr
    assert len(stage.answers) == 1
    _watch_until(stage, lambda: "2 failed" in stage.answers[0])
    assert re.search(r"\| ❌ \| `second` \| `steps=2` \| failed with exit code 3", stage.answers[0]), stage.answers[0]
    assert "All with `fail=no`" in stage.answers[0]

    again = stage.comment("/train retry")
    assert again.code == Exit.OK, again.stderr
    assert len(stage.answers) == 2
    _watch_until(stage, lambda: "2 failed" in stage.answers[1])
    assert len(_checks(stage, "dispatch / second / default")) == 4

    log = stage.comment("/train logs lines=2")
    assert "ValueError: no" in log.summary
    assert "step 0" not in log.summary
    listed = stage.comment("/train status")
    assert listed.summary.count("failed with exit code 3") == 4


def test_the_next_run_waits_its_turn(stage: Stage) -> None:
    """One may be active: the second is queued here, the third is taken out again, the second runs when the first has ended."""
    first = stage.comment("/train pause=1 steps=6")
    assert first.outputs["job-id"], first.stderr
    second, third = stage.comment("/train steps=1"), stage.comment("/train steps=2")
    assert (second.outputs["job-id"], second.outputs["state"]) == ("", "queued")
    assert "place 1 in the queue: profile cluster has 1 of 1 active runs" in stage.answers[1]
    assert "place 2 in the queue" in stage.answers[2]

    gone = stage.comment(f"/train cancel {third.outputs['run-key'][:8]}")
    assert "was taken out of the queue" in gone.summary
    assert "🛑" in stage.answers[2]

    again = stage.comment("/train profile=cluster recipe=default steps=1 note=x")
    assert "place 2 in the queue" in again.summary
    _watch_until(stage, lambda: "✅" in stage.answers[1], within=60)
    assert "passed in" in stage.answers[1]
    assert stage.answers[1].count("| Job |") == 1
    _watch_until(stage, lambda: stage.answers[-1].startswith("### ✅"), within=60)
    [journal] = (stage.job_dir / "usage").iterdir()
    assert journal.read_text().count(" org/repo alice ") >= 3


def test_several_commands_and_two_people(stage: Stage) -> None:
    """Two nodes take somebody else's word; it is the requester's comment that tells of the run."""
    asked = stage.comment("/train profile=second run.nodes=2\n/train help profiles")
    assert "a second person has to agree" in stage.answers[0]
    assert "### Profiles" in stage.answers[1]
    assert asked.code == Exit.OK
    head = stage.pull.head_sha

    own = stage.comment(f"/train approve sha={head}")
    assert own.outputs["reason-code"] == "own-request"
    [check] = _checks(stage, "dispatch/approval")
    assert check.conclusion == "action_required"

    granted = stage.comment(f"/train approve sha={head}", "dana")
    assert (granted.code, granted.outputs["reason-code"]) == (Exit.OK, "approved"), granted.stderr + granted.summary
    [check] = _checks(stage, "dispatch/approval")
    assert check.conclusion == "neutral"
    _watch_until(stage, lambda: stage.answers[0].startswith("### ✅"), within=60)
    assert "asked by `alice`" in stage.answers[0]
    assert "approved by `dana`" in stage.answers[0]


def test_a_forks_commit_runs_when_somebody_vouches(stage: Stage) -> None:
    """The fork's author asks and gets no word; a maintainer vouches for that very commit, and it runs. A later commit does not."""
    fork = stage.server.fork(stage.repo, "mallory/repo")
    fork.commit("topic", {"train.py": TRAIN + "# from a fork\n"})
    pull = stage.repo.open_pull("topic", author="mallory", fork="mallory/repo")
    sha = pull.head_sha

    def say(body: str, author: str) -> Ended:
        return stage.handle("issue_comment", stage.server.comment_event(pull, pull.comment(body, author)))

    asked = say("/train profile=second", "mallory")
    assert asked.outputs["reason-code"] == "waits-fork", asked.summary + asked.stderr
    own = say(f"/train approve sha={sha}", "mallory")
    assert own.outputs["decision"] == "denied"
    vouched = say(f"/train approve sha={sha}", "alice")
    assert (vouched.code, vouched.outputs["reason-code"]) == (Exit.OK, "approved"), vouched.summary + vouched.stderr

    pull.push({"train.py": TRAIN + "# something else\n"})
    late = say(f"/train approve sha={sha}", "alice")
    assert late.outputs["reason-code"] == "sha-mismatch"


def test_an_exception_and_a_new_head(stage: Stage) -> None:
    """`override` opens the gate for one commit; a push closes it again, ends older runs and acts on the standing label."""
    opened = stage.handle("pull_request_target", stage.server.pull_request_event(stage.pull, "opened"))
    assert opened.code == Exit.OK, opened.stderr
    assert _gate(stage) == ("in_progress", None)
    no = stage.comment('/train override dispatch/gate reason="because I want it"')
    assert no.outputs["decision"] == "denied"
    yes = stage.comment('/train override dispatch/gate reason="the cluster is down @everyone"', "dana")
    assert yes.code == Exit.OK, yes.stderr + yes.summary
    assert _gate(stage) == ("completed", "success")
    assert "@everyone" not in stage.answers[-1]

    slow = stage.comment("/train profile=second pause=1 steps=200")
    assert slow.outputs["job-id"]
    stage.pull.add_label("train:second")
    stage.pull.push({"train.py": TRAIN + "# again\n"})
    pushed = stage.handle("pull_request_target", stage.server.pull_request_event(stage.pull, "synchronize"))
    assert pushed.code == Exit.OK, pushed.stderr
    assert _gate(stage) == ("in_progress", None)
    _watch_until(stage, lambda: any("was cancelled" in answer for answer in stage.answers), within=60)
    _watch_until(stage, lambda: _gate(stage) == ("completed", "success"), within=60)


def test_the_merge_queue_runs_what_is_required(stage: Stage) -> None:
    """The queue's commit has no run: it is started there, and the gate turns green when it has passed."""
    sha = stage.repo.queue(stage.pull)
    asked = stage.handle("merge_group", stage.server.merge_group_event(stage.pull, sha), GITHUB_SHA=sha)
    assert asked.code == Exit.OK, asked.stderr
    [run] = _checks(stage, "dispatch / second / default", sha)
    assert run.history[0] == ("queued", None)
    assert _gate(stage, sha) == ("in_progress", None)
    _watch_until(stage, lambda: _gate(stage, sha) == ("completed", "success"))
    again = stage.handle("merge_group", stage.server.merge_group_event(stage.pull, sha), GITHUB_SHA=sha)
    assert again.code == Exit.OK, again.stderr
    assert len(_checks(stage, "dispatch / second / default", sha)) == 1


def test_a_closed_pull_request_ends_its_runs(stage: Stage) -> None:
    """What runs is ended, what is queued is taken out."""
    slow, queued = stage.comment("/train pause=1 steps=200"), stage.comment("/train steps=1")
    assert (slow.outputs["state"], queued.outputs["state"]) == ("pending", "queued")
    stage.pull.close()
    closed = stage.handle("pull_request_target", stage.server.pull_request_event(stage.pull, "closed"))
    assert closed.code == Exit.OK, closed.stderr
    assert "was taken out of the queue" in closed.summary
    _watch_until(stage, lambda: "was cancelled" in stage.answers[0])


def _gate(stage: Stage, sha: str = "") -> tuple[str, str | None]:
    newest = _checks(stage, "dispatch/gate", sha)[-1]
    return newest.status, newest.conclusion


def _checks(stage: Stage, name: str, sha: str = "") -> list[CheckRun]:
    return stage.repo.checks_on(sha or stage.pull.head_sha, name)


def _watch_until(stage: Stage, what: Callable[[], bool], within: float = 40) -> None:
    """Sweeps until it is so."""
    end = time.monotonic() + within
    while not what():
        assert time.monotonic() < end, "\n\n".join(stage.answers)
        swept = stage.run("watch")
        assert swept.code == Exit.OK, swept.stderr
        time.sleep(0.5)
