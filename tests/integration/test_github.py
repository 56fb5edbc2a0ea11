"""GitHubForge against a GitHub that speaks real HTTP and holds every request to GitHub's own description."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from dispatcher.effects.github import GitHubForge
from dispatcher.errors import CATALOGUE, ForgeError
from dispatcher.ports import Annotation, Button, Check, Forge, Label
from tests.fakes import FakeClock
from tests.github_model import File, Pull, Repository
from tests.github_server import GitHubServer

MARKER = "<!-- dispatch:run 0123456789abcdef -->"
FILES = {
    "train.py": "print('step')\n",
    ".github/dispatch.yml": "recipes:\n  default: { script: train.py }\n",
    "profiles/cluster.yaml": "executor: slurm\n",
    "profiles/local.yaml": "executor: local\n",
    "profiles/deep/inner.yaml": "executor: local\n",
    "profiles/link.yaml": File("120000", "cluster.yaml"),
    "latin.txt": "caf\xe9".encode("latin-1"),
}


@dataclass
class World:
    """A repository with an open pull request, and a forge whose clock costs no time."""

    server: GitHubServer
    repo: Repository
    pull: Pull
    clock: FakeClock
    forge: GitHubForge

    def other(self, **changed: Any) -> GitHubForge:
        """Another forge for the same repository."""
        asked = {"repository": "org/repo", "token": self.server.token, "api_url": self.server.api_url, "clock": self.clock, "timeout": 5.0}
        return GitHubForge(**{**asked, **changed})

    def check(self, **changed: Any) -> Check:
        """A check on the head."""
        wanted = Check("train / cluster", self.pull.head_sha, "0123456789abcdef", "queued", None, "waiting", "asked by @alice")
        return replace(wanted, **changed)


@pytest.fixture
def world(github: GitHubServer) -> World:
    repo = github.create_repository("org/repo", FILES)
    repo.commit("feature", {"train.py": "print('more')\n", "new.py": "", "profiles/local.yaml": None})
    clock = FakeClock(datetime.now(timezone.utc))
    forge = GitHubForge("org/repo", github.token, github.api_url, clock=clock, timeout=5.0)
    return World(github, repo, repo.open_pull("feature", author="alice"), clock, forge)


def test_it_is_a_forge(world: World) -> None:
    forge: Forge = world.forge
    assert forge.requests == 0


# --------------------------------------------------------------------------- reading


def test_pull(world: World) -> None:
    world.pull.add_label("train:cluster")
    found = world.forge.pull(1)
    assert found is not None
    assert (found.number, found.state, found.draft, found.author, found.labels) == (1, "open", False, "alice", ("train:cluster",))
    assert (found.head_sha, found.head_ref, found.head_repository) == (world.pull.head_sha, "feature", "org/repo")
    assert (found.base_ref, found.base_sha, found.base_repository) == ("main", world.repo.sha("main"), "org/repo")
    assert not found.from_fork


def test_pull_from_a_fork_and_after_the_fork_is_gone(world: World) -> None:
    fork = world.server.fork(world.repo, "bob/repo")
    fork.commit("mine", {"train.py": "print('bob')\n"})
    pull = world.repo.open_pull("mine", author="bob", fork="bob/repo", draft=True)
    found = world.forge.pull(pull.number)
    assert found is not None
    assert found.head_repository == "bob/repo"
    assert found.from_fork
    assert found.draft

    moved = pull.push({"train.py": "print('moved')\n"})
    assert (again := world.forge.pull(pull.number)) is not None
    assert again.head_sha == moved

    world.server.delete_repository("bob/repo")
    gone = world.forge.pull(pull.number)
    assert gone is not None
    assert gone.head_repository == ""
    assert gone.from_fork


def test_an_issue_is_no_pull_request(world: World) -> None:
    issue = world.repo.open_issue()
    assert world.forge.pull(issue.number) is None
    assert world.forge.pull(404) is None


@pytest.mark.parametrize(
    ("role", "permission"), [("admin", None), ("maintain", None), ("write", None), ("triage", None), ("ml-runner", "write")]
)
def test_role_is_the_fine_one(world: World, role: str, permission: str | None) -> None:
    world.repo.add_collaborator("carol", role, permission)
    assert world.forge.role("carol") == role


def test_role_of_strangers(world: World) -> None:
    world.server.missing_users.add("nobody")
    assert world.forge.role("mallory") is None
    assert world.forge.role("nobody") is None
    public = world.server.create_repository("org/open", {"a": "b"}, private=False)
    assert world.other(repository=public.full_name).role("mallory") == "read"


def test_team_member(world: World) -> None:
    world.server.add_team("org", "ml-team", {"alice": "active", "bob": "pending"})
    assert not world.forge.team_member("org", "ml-team", "alice"), "a job's own token sees no teams"
    forge = world.other(token=world.server.add_token("ghs_app", permissions={"members": "read"}))
    assert forge.team_member("org", "ml-team", "Alice")
    assert not forge.team_member("org", "ml-team", "bob")
    assert not forge.team_member("org", "ml-team", "mallory")
    assert not forge.team_member("org", "no-such-team", "alice")


def test_commit_sha(world: World) -> None:
    slashed = world.repo.commit("users/alice/try", {"x": "y"})
    world.repo.git("tag", "v1", world.repo.sha("main"))
    assert world.forge.commit_sha("main") == world.repo.sha("main")
    assert world.forge.commit_sha("users/alice/try") == slashed
    assert world.forge.commit_sha("v1") == world.repo.sha("main")
    assert world.forge.commit_sha(slashed[:9]) == slashed
    assert world.forge.commit_sha("nowhere") is None
    assert world.forge.commit_sha("0" * 40) is None
    world.server.create_repository("org/empty")
    assert world.other(repository="org/empty").commit_sha("main") is None


def test_where_branches_parted(world: World) -> None:
    """A commit that a branch has is where the two parted, however far the branch has gone since."""
    assert world.forge.default_branch() == "main"
    old = world.repo.sha("main")
    assert world.forge.merge_base("main", old) == old
    new = world.repo.commit("main", {"x": "y"})
    beside = world.repo.commit("users/alice/try", {"x": "z"})
    assert [world.forge.merge_base("main", sha) for sha in (old, new)] == [old, new]
    assert world.forge.merge_base("main", beside) == new
    assert world.forge.merge_base("users/alice/try", beside) == beside
    assert world.forge.merge_base("nowhere", old) is None
    queued = world.repo.queue(world.pull)
    assert world.forge.commit_sha(f"gh-readonly-queue/main/pr-{world.pull.number}-{world.pull.base_sha}") == queued


def test_read_text(world: World) -> None:
    assert world.forge.read_text(".github/dispatch.yml", "main") == FILES[".github/dispatch.yml"]
    assert world.forge.read_text("train.py", world.pull.head_sha) == "print('more')\n"
    assert world.forge.read_text("/profiles//cluster.yaml", "main") == "executor: slurm\n"
    for missing in ("nope.yml", "profiles", "profiles/../train.py", "..", "../../../user"):
        assert world.forge.read_text(missing, "main") is None
    assert world.forge.read_text("train.py", "no-such-ref") is None


@pytest.mark.parametrize(("path", "words"), [("latin.txt", "not UTF-8"), ("big.txt", "1,200,000 bytes")])
def test_what_is_no_small_text(world: World, path: str, words: str) -> None:
    world.repo.commit("main", {"big.txt": "x" * 1_200_000})
    with pytest.raises(ForgeError, match=words) as caught:
        world.forge.read_text(path, "main")
    assert caught.value.code == "github.bad-answer"


def test_list_files(world: World) -> None:
    assert world.forge.list_files("profiles", "main") == ("cluster.yaml", "local.yaml")
    assert world.forge.list_files("profiles", world.pull.head_sha) == ("cluster.yaml",)
    assert world.forge.list_files("", "main") == ("latin.txt", "train.py")
    assert world.forge.list_files("nowhere", "main") == ()
    assert world.forge.list_files("train.py", "main") == ()
    assert world.forge.list_files("profiles/..", "main") == ()


def test_changed_files_on_three_pages_with_a_rename(world: World) -> None:
    many = {f"data/{number:03}.txt": f"{number}\n" for number in range(230)}
    world.pull.push({**many, "train.py": None, "src/train.py": FILES["train.py"]})
    before = world.forge.requests
    found = world.forge.changed_files(1)
    assert set(found) == {*many, "train.py", "src/train.py", "new.py", "profiles/local.yaml"}
    assert world.forge.requests - before == 3


# --------------------------------------------------------------------------- comments


def test_react_twice_is_once(world: World) -> None:
    comment = world.pull.comment("/train profile=cluster")
    world.forge.react(comment.id, "eyes")
    world.forge.react(comment.id, "eyes")
    world.forge.react(comment.id, "rocket")
    assert comment.reactions == [("github-actions[bot]", "eyes"), ("github-actions[bot]", "rocket")]
    world.forge.react(404, "eyes")


def test_find_comment_on_page_three(world: World) -> None:
    for number in range(215):
        world.pull.comment(f"talk {number}")
    wanted = world.repo.add_comment(1, "github-actions[bot]", f"### waiting\n{MARKER}")
    world.repo.add_comment(1, "github-actions[bot]", f"a second one\n{MARKER}")
    found = world.forge.find_comment(1, MARKER)
    assert found is not None
    assert (found.id, found.body) == (wanted.id, wanted.body)
    assert found.url.endswith(f"/org/repo/pull/1#issuecomment-{wanted.id}")
    assert [one.query.get("page") for one in world.server.requests] == [None, ["2"], ["3"]]


def test_only_our_own_comments_count(world: World) -> None:
    for author in ("mallory", "github-actions", "dependabot[bot]"):
        world.pull.comment(f"forged\n{MARKER}", author=author)
    assert world.forge.find_comment(1, MARKER) is None
    forge = world.other(identity="mallory")
    assert forge.find_comment(1, MARKER) is not None


def test_a_person_with_a_bots_name_is_no_bot(world: World) -> None:
    world.repo.add_comment(1, "github-actions[bot]", MARKER)
    path = "/repos/org/repo/issues/1/comments"
    _status, _headers, comments = world.server.answer("GET", path, f"Bearer {world.server.token}", b"")
    comments[0]["user"]["type"] = "User"
    world.server.fail("GET", path, 200, body=json.dumps(comments).encode())
    assert world.forge.find_comment(1, MARKER) is None
    assert world.forge.find_comment(1, MARKER) is not None


def test_since_is_sent_in_utc(world: World) -> None:
    old = world.repo.add_comment(1, "github-actions[bot]", MARKER)
    old.updated_at = "2020-01-01T00:00:00Z"
    zone = timezone(timedelta(hours=9))
    assert world.forge.find_comment(1, MARKER, since=datetime(2020, 1, 1, 9, 0, 0, tzinfo=zone)) is not None
    assert world.forge.find_comment(1, MARKER, since=datetime(2020, 1, 1, 9, 0, 1, tzinfo=zone)) is None
    assert world.server.requests[0].query["since"] == ["2020-01-01T00:00:00Z"]


def test_create_and_update_comment(world: World) -> None:
    made = world.forge.create_comment(1, f"waiting\n{MARKER}", MARKER)
    assert world.forge.find_comment(1, MARKER) == made
    changed = world.forge.update_comment(made.id, f"passed\n{MARKER}")
    assert changed is not None
    assert (changed.id, changed.body) == (made.id, f"passed\n{MARKER}")
    assert [one.body for one in world.pull.comments] == [f"passed\n{MARKER}"]
    del world.repo.comments[made.id]
    assert world.forge.update_comment(made.id, "again") is None


def test_a_comment_without_its_marker_gets_it(world: World) -> None:
    world.forge.create_comment(1, "waiting", MARKER)
    assert world.forge.find_comment(1, MARKER) is not None


def test_long_comments_are_cut_not_refused(world: World) -> None:
    log = "ünï line\n" * 9_000
    body = f"### failed\n<details><summary>log</summary>\n\n```\n{log}```\n</details>\n{MARKER}\n"
    made = world.forge.create_comment(1, body, MARKER)
    assert len(made.body) <= 65_536
    assert len(made.body) > 65_000
    assert MARKER in made.body
    assert made.body.count("```") == 2
    assert "Cut here" in made.body
    again = world.forge.update_comment(made.id, body)
    assert again is not None
    assert again.body == made.body


def test_remove_label(world: World) -> None:
    world.pull.labels = ["train/cluster", "a b?#", "bug"]
    world.forge.remove_label(1, "train/cluster")
    world.forge.remove_label(1, "train/cluster")
    world.forge.remove_label(1, "a b?#")
    assert world.pull.labels == ["bug"]
    with pytest.raises(ForgeError) as caught:
        world.forge.remove_label(1, "..")
    assert caught.value.code == "github.invalid"
    assert world.pull.labels == ["bug"]


def test_add_label(world: World) -> None:
    world.forge.add_label(1, "dispatch: overridden")
    world.forge.add_label(1, "dispatch: overridden")
    world.forge.add_label(1, "train/ä?#,")
    assert world.pull.labels == ["dispatch: overridden", "train/ä?#,"]
    assert world.forge.requests == 3


def test_create_label_and_bring_it_up_to_date(world: World) -> None:
    assert world.forge.create_label(Label("train:cluster", "0E8A16", "Trains on the cluster"))
    assert world.forge.requests == 1
    assert not world.forge.create_label(Label("Train:Cluster", "ffffff", "Trains there"))
    assert world.forge.requests == 3
    [made] = world.repo.labels.values()
    assert (made.name, made.color, made.description) == ("Train:Cluster", "ffffff", "Trains there")
    assert world.forge.create_label(Label("train/a b?#", "000000", ""))
    assert not world.forge.create_label(Label("train/a b?#", "111111", ""))
    assert world.repo.labels["train/a b?#"].color == "111111"


@pytest.mark.parametrize(
    "label",
    [
        Label("", "ffffff", ""),
        Label(" ", "ffffff", ""),
        Label("x" * 51, "ffffff", ""),
        Label("a\nb", "ffffff", ""),
        Label("train", "#ffffff", ""),
        Label("train", "fff", ""),
        Label("train", "ffffff", "x" * 101),
    ],
)
def test_a_label_that_github_would_not_take_is_not_sent(world: World, label: Label) -> None:
    with pytest.raises(ForgeError) as caught:
        world.forge.create_label(label)
    assert caught.value.code == "github.invalid"
    assert world.forge.requests == 0


def test_what_else_is_wrong_with_a_label_is_no_reason_to_change_one(world: World) -> None:
    world.server.fail("POST", "/labels$", 422, message="because")
    with pytest.raises(ForgeError, match="because"):
        world.forge.create_label(Label("train", "ffffff", ""))
    assert world.forge.requests == 1


def test_labelled_on_every_page_and_only_open_pull_requests(world: World) -> None:
    for number in range(2, 106):
        world.repo.commit(f"b{number}", {f"{number}.txt": "x"})
        world.repo.open_pull(f"b{number}")
    world.repo.open_issue().add_label("dispatch: overridden")
    for number in (1, 50, 104):
        world.repo.issues[number].add_label("dispatch: overridden")
    world.repo.issues[51].add_label("other")
    closed = world.repo.issues[52]
    closed.add_label("dispatch: overridden")
    closed.close()
    assert world.forge.labelled("Dispatch: Overridden") == (1, 50, 104)
    assert world.forge.requests == 2
    assert world.forge.labelled("none") == ()


def test_open_pull_requests_with_a_head_also_those_of_forks(world: World) -> None:
    fork = world.server.fork(world.repo, "bob/repo")
    fork.set_branch("theirs", fork.sha("main"))
    world.repo.set_branch("feature", fork.sha("main"))
    world.repo.set_branch("scratch", fork.sha("main"))
    world.repo.commit("other", {"b": "x"})
    same, gone = world.repo.open_pull("theirs", "bob", "bob/repo", base="scratch"), world.repo.open_pull("scratch")
    world.repo.open_pull("other")
    gone.close()
    found = world.forge.open_pulls_at(world.pull.head_sha)
    assert sorted((one.number, one.base_ref) for one in found) == [(world.pull.number, "main"), (same.number, "scratch")]
    assert world.forge.requests == 1, "the list has everything that a pull request itself would say"
    assert world.forge.pull(same.number) in found


# --------------------------------------------------------------------------- checks


BUTTONS = (Button("Cancel", "Ends the job", "cancel"), Button("Retry", "Runs it again", "retry"))


def as_app(world: World) -> GitHubForge:
    """The same repository, spoken to by a GitHub App of one's own."""
    from tests.github_model import App

    world.server.add_token("ghs_own", "our-trainer[bot]", App(78, "our-trainer", "Our trainer"))
    return world.other(token="ghs_own", identity="our-trainer[bot]", app_slug="our-trainer")


def test_an_apps_check_has_buttons_until_they_are_taken_away(world: World) -> None:
    forge = as_app(world)
    made = forge.create_check(world.check(buttons=BUTTONS))
    state = world.repo.checks[made.id]
    assert state.actions == [
        {"label": "Cancel", "description": "Ends the job", "identifier": "cancel"},
        {"label": "Retry", "description": "Runs it again", "identifier": "retry"},
    ]
    forge.update_check(made.id, world.check(status="completed", conclusion="failure", buttons=BUTTONS[1:]))
    assert [one["identifier"] for one in state.actions] == ["retry"]
    forge.update_check(made.id, world.check(status="completed", conclusion="success"))
    assert state.actions == []


def test_a_jobs_own_token_sends_no_buttons(world: World) -> None:
    made = world.forge.create_check(world.check(buttons=BUTTONS))
    world.forge.update_check(made.id, world.check(buttons=BUTTONS))
    assert [one.body.get("actions") for one in world.server.requests] == [None, None]


def test_what_stands_in_a_checks_text_is_read_again(world: World) -> None:
    made = world.forge.create_check(world.check(name="dispatch/approval", text='{"asked": "/train"}'))
    assert (made.name, made.text) == ("dispatch/approval", '{"asked": "/train"}')
    assert world.forge.find_checks(world.pull.head_sha, "dispatch/approval") == (made,)
    changed = world.forge.update_check(made.id, world.check(name="dispatch/approval"))
    assert changed is not None
    assert changed.text == ""


def test_a_check_without_text_sends_none(world: World) -> None:
    made = world.forge.create_check(world.check())
    assert made.text == ""
    assert set(world.server.requests[0].body["output"]) == {"title", "summary"}


def test_a_long_text_is_cut_by_bytes(world: World) -> None:
    made = world.forge.create_check(world.check(text="ü" * 40_000))
    assert 65_000 < len(made.text.encode()) <= 65_535


def test_a_lost_change_of_text_is_not_taken_for_heard(world: World) -> None:
    """With annotations a repeat could double them, so what is there is compared first: the text too."""
    note = (Annotation("train.py", 1, "notice", "note"),)
    made = world.forge.create_check(world.check(text="old", annotations=note))
    world.server.reset("PATCH", "/check-runs/")
    world.forge.update_check(made.id, world.check(text="new", annotations=note))
    assert (world.repo.checks[made.id].text, len(world.repo.checks[made.id].annotations)) == ("new", 2)


def test_a_check_from_pending_to_its_end(world: World) -> None:
    made = world.forge.create_check(world.check(details_url="https://example.com/log"))
    assert (made.status, made.conclusion, made.external_id) == ("queued", None, "0123456789abcdef")
    ended = world.check(status="completed", conclusion="timed_out", title="over its time", summary="4 h")
    changed = world.forge.update_check(made.id, ended)
    assert changed is not None
    assert (changed.id, changed.status, changed.conclusion) == (made.id, "completed", "timed_out")
    [state] = world.repo.checks.values()
    assert (state.title, state.summary, state.details_url) == ("over its time", "4 h", "https://example.com/log")
    assert state.history == [("queued", None), ("completed", "timed_out")]
    assert world.forge.update_check(404, ended) is None


def test_find_checks_of_our_own_app_newest_first_all_pages(world: World) -> None:
    from tests.github_model import App

    world.server.add_token("ghs_other", "other[bot]", App(77, "other-ci", "Other CI"))
    world.other(token="ghs_other").create_check(world.check())
    made = [world.forge.create_check(world.check(external_id=f"{number:016x}")) for number in range(120)]
    world.forge.create_check(world.check(name="dispatch/gate"))
    before = world.forge.requests
    found = world.forge.find_checks(world.pull.head_sha, "train / cluster")
    assert world.forge.requests - before == 2
    assert found == tuple(reversed(made))
    assert len(world.forge.find_checks(world.pull.head_sha)) == 121
    assert world.forge.find_checks(world.repo.sha("main")) == ()


def test_many_annotations_go_in_several_requests(world: World) -> None:
    notes = tuple(Annotation("train.py", number, "warning", f"note {number}") for number in range(1, 121))
    made = world.forge.create_check(world.check(annotations=notes))
    assert world.forge.requests == 3
    assert [one["message"] for one in world.repo.checks[made.id].annotations] == [one.message for one in notes]
    world.forge.update_check(made.id, world.check(status="completed", conclusion="failure", annotations=notes[:51]))
    assert world.forge.requests == 5
    assert len(world.repo.checks[made.id].annotations) == 171


def test_long_summaries_are_cut_by_bytes(world: World) -> None:
    made = world.forge.create_check(world.check(summary="ü" * 60_000, annotations=(Annotation("a", 0, "failure", "é" * 40_000),)))
    state = world.repo.checks[made.id]
    assert state.summary is not None
    assert 65_000 < len(state.summary.encode()) <= 65_535
    assert state.annotations[0]["start_line"] == 1


def test_a_check_of_another_app_cannot_be_changed(world: World) -> None:
    from tests.github_model import App

    world.server.add_token("ghs_other", "other[bot]", App(77, "other-ci", "Other CI"))
    theirs = world.other(token="ghs_other").create_check(world.check())
    with pytest.raises(ForgeError) as caught:
        world.forge.update_check(theirs.id, world.check())
    assert caught.value.code == "github.forbidden"
    assert "Only the app that made this check" in caught.value.next_step


# --------------------------------------------------------------------------- every call, every fault


@dataclass(frozen=True)
class Case:
    """One method of the port, what it sends, and what it is called with."""

    name: str
    method: str
    path: str
    call: Callable[[World], Any]
    absent: Any = "error"
    """What it gives where GitHub says 404."""


def _our_comment(world: World) -> int:
    return next(one.id for one in world.pull.comments if one.author == "github-actions[bot]")


def _our_check(world: World) -> int:
    return next(iter(world.repo.checks))


CASES = [
    Case("pull", "GET", r"/pulls/1$", lambda world: world.forge.pull(1), None),
    Case("role", "GET", r"/permission$", lambda world: world.forge.role("alice"), None),
    Case("commit_sha", "GET", r"/commits/main$", lambda world: world.forge.commit_sha("main"), None),
    Case("read_text", "GET", r"/contents/train.py$", lambda world: world.forge.read_text("train.py", "main"), None),
    Case("list_files", "GET", r"/contents/profiles$", lambda world: world.forge.list_files("profiles", "main"), ()),
    Case("changed_files", "GET", r"/files$", lambda world: world.forge.changed_files(1)),
    Case("find_comment", "GET", r"/comments$", lambda world: world.forge.find_comment(1, MARKER)),
    Case("find_checks", "GET", r"/check-runs$", lambda world: world.forge.find_checks(world.pull.head_sha)),
    Case("react", "POST", r"/reactions$", lambda world: world.forge.react(world.pull.comments[0].id, "eyes"), False),
    Case("create_comment", "POST", r"/comments$", lambda world: world.forge.create_comment(1, "new <!-- new -->", "<!-- new -->")),
    Case("update_comment", "PATCH", r"/comments/\d+$", lambda world: world.forge.update_comment(_our_comment(world), "changed"), None),
    Case("create_check", "POST", r"/check-runs$", lambda world: world.forge.create_check(world.check(external_id="new"))),
    Case("update_check", "PATCH", r"/check-runs/\d+$", lambda world: world.forge.update_check(_our_check(world), world.check()), None),
    Case("add_label", "POST", r"/issues/1/labels$", lambda world: world.forge.add_label(1, "more")),
    Case("create_label", "POST", r"/repo/labels$", lambda world: world.forge.create_label(Label("new", "ffffff", "d"))),
    Case("labelled", "GET", r"/pulls$", lambda world: world.forge.labelled("bug")),
    Case("open_pulls_at", "GET", r"/pulls$", lambda world: world.forge.open_pulls_at(world.pull.head_sha)),
    Case("remove_label", "DELETE", r"/labels/bug$", lambda world: world.forge.remove_label(1, "bug"), None),
]
every_call = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@pytest.fixture
def busy(world: World) -> World:
    """Something of everything, so that every call finds what it is about."""
    world.pull.comment("/train profile=cluster")
    world.repo.add_comment(1, "github-actions[bot]", MARKER)
    world.repo.add_collaborator("alice", "write")
    world.pull.add_label("bug")
    world.other().create_check(world.check())
    world.server.requests.clear()
    return world


def _state(world: World) -> list[Any]:
    """What a repeated write could have doubled."""
    return [
        sorted(one.body for one in world.pull.comments),
        sorted(one.external_id for one in world.repo.checks.values()),
        world.pull.comments[0].reactions,
        world.pull.labels,
    ]


@every_call
def test_one_call_is_one_request(busy: World, case: Case) -> None:
    case.call(busy)
    assert busy.forge.requests == 1
    assert [(one.method, one.status < 300) for one in busy.server.requests] == [(case.method, True)]


REFUSALS = {401: "github.unauthorized", 403: "github.forbidden", 422: "github.invalid", 410: "github.not-found"}


@every_call
def test_a_refusal_is_final(busy: World, case: Case) -> None:
    for count, (status, code) in enumerate(REFUSALS.items(), start=1):
        busy.server.faults.clear()
        busy.server.fail(case.method, case.path, status, message="because", times=99)
        absent_too = status == 410 or (status == 422 and case.name == "commit_sha")
        if absent_too and case.absent != "error":
            assert case.call(busy) == case.absent
        else:
            with pytest.raises(ForgeError, match="because") as caught:
                case.call(busy)
            assert caught.value.code == code
            assert busy.server.token not in caught.value.cause
        assert busy.forge.requests == count
    assert busy.clock.slept == []


@every_call
def test_not_found(busy: World, case: Case) -> None:
    busy.server.fail(case.method, case.path, 404)
    if case.absent != "error":
        assert case.call(busy) == case.absent
    else:
        with pytest.raises(ForgeError) as caught:
            case.call(busy)
        assert caught.value.code == "github.not-found"


FAULTS: dict[str, tuple[Callable[..., Any], str]] = {
    "500": (lambda server, *at, **how: server.fail(*at, 500, **how), "github.unavailable"),
    "502 page": (lambda server, *at, **how: server.fail(*at, 502, body=b"<html>Unicorn!</html>", **how), "github.unavailable"),
    "reset": (lambda server, *at, **how: server.reset(*at, **how), "github.unreachable"),
    "slow": (lambda server, *at, **how: server.slow(*at, 0.7, **how), "github.unreachable"),
}


@every_call
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("after_effect", [False, True], ids=["lost on the way", "answer lost"])
def test_a_passing_fault_is_got_over_and_nothing_is_doubled(busy: World, case: Case, fault: str, after_effect: bool) -> None:
    twin = [*_state(busy)]
    busy.forge = busy.other(timeout=0.3)
    FAULTS[fault][0](busy.server, case.method, case.path, after_effect=after_effect)
    case.call(busy)
    after = _state(busy)
    assert len(after[0]) - len(twin[0]) == (case.name == "create_comment")
    assert len(after[1]) - len(twin[1]) == (case.name == "create_check")
    assert len(after[2]) == (case.name == "react")
    assert after[3] == {"remove_label": [], "add_label": ["bug", "more"]}.get(case.name, ["bug"])
    assert busy.forge.requests <= 3
    assert sum(busy.clock.slept) <= 2


@every_call
def test_a_lasting_fault_is_a_coded_error(busy: World, case: Case) -> None:
    for fault, (make, code) in FAULTS.items():
        busy.server.faults.clear()
        busy.forge, busy.clock.slept = busy.other(timeout=0.1 if fault == "slow" else 5.0), []
        make(busy.server, case.method, case.path, times=99)
        with pytest.raises(ForgeError) as caught:
            case.call(busy)
        assert caught.value.code == code
        assert 3 <= busy.forge.requests <= 5
        assert sum(busy.clock.slept) <= 60


@every_call
def test_a_short_rate_limit_is_waited_for(busy: World, case: Case) -> None:
    busy.server.limit(case.method, case.path, retry_after=7, status=429)
    busy.server.limit(case.method, case.path, retry_after=8, status=403)
    case.call(busy)
    assert busy.clock.slept == [7, 8]
    assert busy.forge.requests == 3


@every_call
def test_a_long_rate_limit_says_until_when(busy: World, case: Case) -> None:
    busy.server.limit(case.method, case.path, retry_after=1800, times=99)
    until = busy.clock.now() + timedelta(seconds=1800)
    with pytest.raises(ForgeError) as caught:
        case.call(busy)
    assert caught.value.code == "github.rate-limited"
    assert f"{until:%H:%M} UTC" in caught.value.next_step
    assert busy.clock.slept == []


@every_call
def test_an_answer_that_is_not_json(busy: World, case: Case) -> None:
    busy.server.fail(case.method, case.path, 200, body=b"<html><body>Please <b>log in</b> to the proxy</body></html>", times=99)
    with pytest.raises(ForgeError, match="log in") as caught:
        case.call(busy)
    assert caught.value.code == "github.bad-answer"


@every_call
def test_an_answer_that_ends_early(busy: World, case: Case) -> None:
    busy.server.chop(case.method, case.path, 20)
    before = [len(part) for part in _state(busy)[:2]]
    case.call(busy)
    added = [case.name == "create_comment", case.name == "create_check"]
    assert [len(part) for part in _state(busy)[:2]] == [count + more for count, more in zip(before, added, strict=True)]


@every_call
def test_an_answer_of_another_shape(busy: World, case: Case) -> None:
    """A server that answers everything with an empty object or an empty list gives no crash, only an answer or a coded error."""
    for body in (b"{}", b"[]", b'{"id": "x", "user": 7, "check_runs": [{}]}', b"[7]", b"null"):
        busy.server.faults.clear()
        busy.server.fail("*", ".", 200, body=body, times=99)
        codes = set()
        try:
            case.call(busy)
        except ForgeError as problem:
            codes.add(problem.code)
        assert codes <= {"github.bad-answer"}


# --------------------------------------------------------------------------- limits, in particular


def test_the_primary_limit_is_waited_for_by_githubs_clock(world: World) -> None:
    world.clock.time = datetime(2019, 1, 1, tzinfo=timezone.utc)
    world.server.remaining, world.server.reset_at = 0, int(datetime.now(timezone.utc).timestamp()) + 30
    with pytest.raises(ForgeError) as caught:
        world.forge.pull(1)
    assert caught.value.code == "github.rate-limited"
    assert 28 <= world.clock.slept[0] <= 32
    world.server.remaining = 10
    assert world.forge.pull(1) is not None


def test_a_reset_time_is_by_githubs_clock_not_the_runners(world: World) -> None:
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700000030", "Date": "Tue, 14 Nov 2023 22:13:20 GMT"}
    world.server.fail("GET", "/pulls/1$", 403, headers=headers)
    assert world.forge.pull(1) is not None
    assert world.clock.slept == [31]


def test_a_secondary_limit_without_a_time_is_a_minute(world: World) -> None:
    world.server.limit("GET", "/pulls/1$", status=403)
    assert world.forge.pull(1) is not None
    world.server.fail("GET", "/pulls/1$", 429)
    assert world.forge.pull(1) is not None
    assert world.clock.slept == [60, 60]


def test_permissions_are_named(world: World) -> None:
    poor = world.other(token=world.server.add_token("ghs_poor", permissions={}))
    for call, words in (
        (lambda: poor.create_check(world.check()), "`checks: write`"),
        (lambda: poor.create_comment(1, "x", "x"), "`issues: write` or `pull-requests: write`"),
        (lambda: poor.read_text("train.py", "main"), "`contents: read`"),
    ):
        with pytest.raises(ForgeError) as caught:
            call()
        assert caught.value.code == "github.forbidden"
        assert words in caught.value.next_step
    world.server.fail("POST", "/check-runs$", 403)
    with pytest.raises(ForgeError) as caught:
        world.forge.create_check(world.check())
    assert "`checks: write`" in caught.value.next_step


def test_no_error_tells_the_token(world: World) -> None:
    world.server.fail("GET", "/pulls/1$", 401, message=f"Bad credentials: {world.server.token}")
    with pytest.raises(ForgeError, match=r"Bad credentials: \*\*\*") as caught:
        world.forge.pull(1)
    assert world.server.token not in f"{caught.value!r} {caught.value.next_step}"


def test_lost_annotations_are_not_doubled(world: World) -> None:
    notes = tuple(Annotation("train.py", number, "notice", f"note {number}") for number in range(1, 121))
    for nth in (1, 2):
        world.server.reset("PATCH", "/check-runs/", nth=nth, after_effect=True)
    world.server.reset("PATCH", "/check-runs/", nth=4)
    made = world.forge.create_check(world.check(annotations=notes))
    assert [one["message"] for one in world.repo.checks[made.id].annotations] == [one.message for one in notes]
    world.server.faults.clear()
    world.server.reset("PATCH", "/check-runs/", after_effect=True)
    world.forge.update_check(made.id, world.check(status="completed", conclusion="failure", title="failed", annotations=notes[:10]))
    assert len(world.repo.checks[made.id].annotations) == 130


def test_a_write_that_is_never_seen_is_not_made_for_ever(world: World) -> None:
    world.server.reset("POST", "/comments$", times=99)
    with pytest.raises(ForgeError) as caught:
        world.forge.create_comment(1, MARKER, MARKER)
    assert caught.value.code == "github.unreachable"
    assert len(world.server.requests_to("POST", "/comments$")) == 3
    assert len(world.server.requests_to("GET", "/comments$")) == 2


# --------------------------------------------------------------------------- where the API is


def test_a_renamed_repository_is_followed(world: World) -> None:
    for number in range(120):
        world.pull.comment(f"talk {number}")
    world.server.rename_repository(world.repo, "org/renamed")
    made = world.forge.create_comment(1, MARKER, MARKER)
    assert world.forge.find_comment(1, MARKER) == made
    assert world.forge.update_comment(made.id, "new") is not None
    assert world.forge.pull(1) is not None
    assert len(world.pull.comments) == 121


def test_a_redirect_without_the_query_gets_it(world: World) -> None:
    path = "/repos/org/repo/issues/1/comments"
    world.server.fail("GET", path, 301, headers={"Location": f"{world.server.api_url}{path}"})
    world.forge.find_comment(1, MARKER, since=world.clock.now())
    assert world.forge.requests == 2
    assert world.server.requests[1].query.keys() == {"per_page", "since"}


def test_an_enterprise_server() -> None:
    with GitHubServer(prefix="/api/v3") as server:
        repo = server.create_repository("org/repo", FILES)
        repo.commit("feature", {"a": "b"})
        pull = repo.open_pull("feature")
        for number in range(150):
            pull.comment(f"talk {number}")
        forge = GitHubForge("org/repo", server.token, server.api_url + "/", clock=FakeClock())
        made = forge.create_comment(1, MARKER, MARKER)
        assert forge.find_comment(1, MARKER) == made
        assert forge.pull(1) is not None
        assert server.violations == []


def test_the_token_goes_to_no_other_server(world: World) -> None:
    with GitHubServer() as other:
        world.server.fail("GET", "/pulls/1$", 301, headers={"Location": f"{other.api_url}/repos/org/repo/pulls/1"}, times=99)
        with pytest.raises(ForgeError, match=r"sends its callers to http://127\.0\.0\.1") as caught:
            world.forge.pull(1)
        assert caught.value.code == "github.bad-answer"
        assert other.requests == []


def test_a_redirect_in_a_circle_ends(world: World) -> None:
    world.server.fail("GET", "/pulls/1$", 301, headers={"Location": f"{world.server.api_url}/repos/org/repo/pulls/1"}, times=99)
    with pytest.raises(ForgeError, match="again and again"):
        world.forge.pull(1)


def test_nobody_there() -> None:
    with GitHubServer() as server:
        address = server.api_url
    clock = FakeClock()
    forge = GitHubForge("org/repo", "ghs_secret", address, clock=clock)
    with pytest.raises(ForgeError) as caught:
        forge.create_comment(1, MARKER, MARKER)
    assert caught.value.code == "github.unreachable"
    assert "could not connect" in caught.value.cause
    assert forge.requests == 5, "a connection that was refused cannot have done anything, so a POST is tried again"


WRONG = [
    ({"token": ""}, "github.unauthorized"),
    ({"api_url": "api.github.com"}, "github.unreachable"),
    ({"repository": "org/.."}, "github.invalid"),
    ({"repository": "org"}, "github.invalid"),
]


@pytest.mark.parametrize(("changed", "code"), WRONG)
def test_what_cannot_work_is_said_before_anything_is_sent(changed: dict[str, str], code: str) -> None:
    with pytest.raises(ForgeError) as caught:
        GitHubForge(**{"repository": "org/repo", "token": "ghs_secret", **changed})
    assert caught.value.code == code
    assert code in CATALOGUE


def test_importing_the_module_does_not_import_pygithub() -> None:
    program = "import sys, dispatcher.effects.github; sys.exit('github' in sys.modules or 'requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
