"""What the story wants to know and to say → requests to GitHub's REST API, through PyGithub: the real `Forge`.

One method is one request (one per page of 100 where there are pages), because a repository's token has 1,000 an hour:
PyGithub's objects are made lazily, from an address alone. Importing PyGithub takes 0.4 s, so only the constructor does it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dispatcher.effects.clock import SystemClock
from dispatcher.effects.github_account import JOBS_OWN_APP, Account, GivenToken
from dispatcher.effects.github_objects import (
    answer_of,
    check_fields,
    check_ref,
    comment_of,
    label_name,
    missing_is_none,
    pull_request,
    segment,
)
from dispatcher.errors import ForgeError
from dispatcher.fit import COMMENT_CHARACTERS, fit
from dispatcher.ports import Annotation, Check, CheckRef, Clock, Comment, Label, PullRequest, Reaction

if TYPE_CHECKING:
    from github.CheckRun import CheckRun
    from github.IssueComment import IssueComment

ANNOTATIONS_PER_REQUEST = 50
LABEL_DESCRIPTION_CHARACTERS = 100


class GitHubForge:
    """Implements the `Forge` port for one repository (`owner/name`).

    `token` is one, or an `Account` that makes its own. `identity` is the login our comments are written under (a bot's ends with
    `[bot]`) and `app_slug` the App our checks are made by: those of a token; an account knows its own. `api_url` may be a GitHub
    Enterprise Server's (`https://host/api/v3`). `timeout`: seconds to wait for a connection and for each piece of an answer.
    `patience`: seconds one request may spend waiting for better times.
    """

    def __init__(
        self,
        repository: str,
        token: str | Account,
        api_url: str = "https://api.github.com",
        identity: str = f"{JOBS_OWN_APP}[bot]",
        app_slug: str = JOBS_OWN_APP,
        timeout: float = 20.0,
        patience: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        from github.Repository import Repository

        from dispatcher.effects.github_http import Transport

        self._clock = clock or SystemClock()
        self._account = GivenToken(token, identity, app_slug) if isinstance(token, str) else token
        self._http = Transport(self._account, api_url, timeout, patience, self._clock)
        owner, _, name = repository.partition("/")
        self._repository = Repository(self._http, url=f"/repos/{segment(owner)}/{segment(name)}")

    @property
    def requests(self) -> int:
        """How many HTTP requests were sent, redirects and repeats included."""
        return self._http.sent

    @property
    def _has_buttons(self) -> bool:
        return self._account.app_slug != JOBS_OWN_APP

    # ------------------------------------------------------------------- who and what

    def pull(self, number: int) -> PullRequest | None:
        """https://docs.github.com/rest/pulls/pulls#get-a-pull-request"""
        with answer_of("the pull request"):
            return missing_is_none(lambda: pull_request(self._repository.get_pull(number)))

    def role(self, login: str) -> str | None:
        """https://docs.github.com/rest/collaborators/collaborators#get-repository-permissions-for-a-user

        `role_name`, because `permission` calls maintain write and triage read.
        """
        with answer_of("the collaborator's role"):
            name = missing_is_none(lambda: self._repository.get_collaborator_role_name(segment(login)))
        return name if name and name != "none" else None

    def team_member(self, org: str, team: str, login: str) -> bool:
        """https://docs.github.com/rest/teams/members#get-team-membership-for-a-user

        A token that may not see the team gets 403 or 404, and both are a no. A GITHUB_TOKEN sees no teams.
        """
        from github.Organization import Organization

        with answer_of("the team membership"):
            found = Organization(self._http, url=f"/orgs/{segment(org)}").get_team_by_slug(segment(team))
            state = missing_is_none(lambda: str(found.get_team_membership(segment(login)).state), also=("github.forbidden",))
        return state == "active"

    # ------------------------------------------------------------------- what is in the repository

    def commit_sha(self, ref: str) -> str | None:
        """https://docs.github.com/rest/commits/commits#get-a-commit

        422 is "No commit found", 409 an empty repository. The page of one file keeps a large commit's answer small. `complete`,
        because PyGithub takes a commit's SHA from the address it was made with.
        """
        with answer_of("the commit"):
            commit = self._repository.get_commit(segment(ref), commit_files_per_page=1)
            return missing_is_none(lambda: str(commit.complete().sha), also=("github.invalid",))

    def default_branch(self) -> str:
        """https://docs.github.com/rest/repos/repos#get-a-repository"""
        with answer_of("the repository"):
            return str(self._repository.default_branch)

    def merge_base(self, base: str, head: str) -> str | None:
        """https://docs.github.com/rest/commits/commits#compare-two-commits (one commit a page: only the base is of interest)"""
        with answer_of("the comparison"):
            return missing_is_none(lambda: str(self._repository.compare(base, head, comparison_commits_per_page=1).merge_base_commit.sha))

    def read_text(self, path: str, ref: str) -> str | None:
        """https://docs.github.com/rest/repos/contents#get-repository-content (at most 1 MB, UTF-8)"""
        found = self._contents(path, ref)
        if found is None or isinstance(found, list) or found.type != "file":
            return None
        if found.encoding != "base64":
            raise ForgeError("github.bad-answer", f"`{path}` is too large to be read through GitHub's API ({found.size:,} bytes).")
        try:
            return str(found.decoded_content, "utf-8")
        except ValueError:
            raise ForgeError("github.bad-answer", f"`{path}` is not UTF-8 text.") from None

    def list_files(self, path: str, ref: str) -> tuple[str, ...]:
        """https://docs.github.com/rest/repos/contents#get-repository-content (GitHub lists at most 1,000)"""
        found = self._contents(path, ref)
        return tuple(sorted(entry.name for entry in found if entry.type == "file")) if isinstance(found, list) else ()

    def _contents(self, path: str, ref: str) -> Any:
        """A `ContentFile`, a list of them for a folder, or None. No path leads out of the repository's contents."""
        parts = [part for part in path.split("/") if part]
        if any(part in (".", "..") for part in parts):
            return None
        with answer_of(f"`{path}`"):
            return missing_is_none(lambda: self._repository.get_contents("/".join(parts), ref=ref))

    def changed_files(self, number: int) -> tuple[str, ...]:
        """https://docs.github.com/rest/pulls/pulls#list-pull-requests-files, sorted; a renamed file counts under both names."""
        with answer_of("the list of changed files"):
            files = list(self._repository.get_pull(number).get_files())
            names = {file.filename for file in files}
            return tuple(sorted(names | {file.previous_filename for file in files if file.status == "renamed"}))

    def open_pulls_at(self, sha: str) -> tuple[PullRequest, ...]:
        """https://docs.github.com/rest/pulls/pulls#list-pull-requests, one request for each 100 that are open.

        The list of a commit's pull requests (`/commits/{sha}/pulls`) would be shorter, but leaves out those of forks.
        """
        with answer_of("the open pull requests"):
            return tuple(pull_request(one) for one in self._repository.get_pulls(state="open") if one.head.sha == sha)

    # ------------------------------------------------------------------- what we say

    def react(self, comment_id: int, content: Reaction) -> bool:
        """https://docs.github.com/rest/reactions/reactions#create-reaction-for-an-issue-comment; False when the comment is gone.

        GitHub answers 201 to a new reaction and 200 to one that was there; PyGithub does not tell the two apart.
        """
        from dispatcher.effects.github_http import STATUS

        url = f"{self._repository.url}/issues/comments/{comment_id}/reactions"
        made = missing_is_none(lambda: self._http.requestJsonAndCheck("POST", url, input={"content": content}))
        return made is not None and made[0][STATUS] == "201"

    def find_comment(self, number: int, marker: str, since: datetime | None = None) -> Comment | None:
        """https://docs.github.com/rest/issues/comments#list-issue-comments; the oldest that has the marker as a line of its own.

        Somebody's words that we quote stand within lines, so they can be no marker.
        `since` (aware) leaves out comments that were not changed after it.
        """
        with answer_of("the comments"):
            issue = self._repository.get_issue(number)
            comments = issue.get_comments(since.astimezone(timezone.utc)) if since else issue.get_comments()
            return next((comment_of(one) for one in comments if marker in (one.body or "").splitlines() and self._is_ours(one)), None)

    def _is_ours(self, comment: IssueComment) -> bool:
        """Whether our identity wrote it: anybody can write a marker, and a user could be named like an app."""
        user = comment.user
        identity = self._account.identity.lower()
        return user is not None and user.login.lower() == identity and (not identity.endswith("[bot]") or user.type == "Bot")

    def create_comment(self, number: int, body: str, marker: str) -> Comment:
        """https://docs.github.com/rest/issues/comments#create-an-issue-comment"""
        text = fit(body if marker in body.splitlines() else f"{body}\n\n{marker}", COMMENT_CHARACTERS, "characters")
        with answer_of("the new comment"):
            return self._http.once(
                lambda: comment_of(self._repository.get_issue(number).create_comment(text)), lambda: self.find_comment(number, marker)
            )

    def update_comment(self, comment_id: int, body: str) -> Comment | None:
        """https://docs.github.com/rest/issues/comments#update-an-issue-comment"""
        text = fit(body, COMMENT_CHARACTERS, "characters")

        def change() -> Comment:
            comment = self._comment(comment_id)
            comment.edit(text)
            return comment_of(comment)

        with answer_of("the comment"):
            return missing_is_none(change)

    def _comment(self, comment_id: int) -> IssueComment:
        from github.IssueComment import IssueComment

        return IssueComment(self._http, url=f"{self._repository.url}/issues/comments/{comment_id}")

    # ------------------------------------------------------------------- labels

    def add_label(self, number: int, label: str) -> None:
        """https://docs.github.com/rest/issues/labels#add-labels-to-an-issue; what is there already stays.

        Sent by hand: PyGithub sends a bare list of names, which GitHub does not describe.
        """
        url = f"{self._repository.url}/issues/{number}/labels"
        self._http.requestJsonAndCheck("POST", url, input={"labels": [label_name(label)]})

    def create_label(self, label: Label) -> bool:
        """https://docs.github.com/rest/issues/labels#create-a-label; one more request where the label exists.

        After a lost answer, a label that looks as wanted counts as new.
        """
        name, color = label_name(label.name), label.color.lower()
        if not re.fullmatch(r"[0-9a-f]{6}", color) or len(label.description) > LABEL_DESCRIPTION_CHARACTERS:
            raise ForgeError(
                "github.invalid", f"The label {name!r} takes six hex digits and at most {LABEL_DESCRIPTION_CHARACTERS} characters."
            )

        def look() -> bool | None:
            found = self._repository.get_label(name).complete()
            return True if (found.color.lower(), found.description or "") == (color, label.description) else None

        def make() -> bool:
            try:
                self._repository.create_label(name, color, label.description)
            except ForgeError as problem:
                if problem.code != "github.invalid" or "already_exists" not in problem.cause:
                    raise
                self._repository.get_label(name).edit(name, color, label.description)
                return False
            return True

        with answer_of("the label"):
            return self._http.once(make, lambda: missing_is_none(look))

    def labelled(self, label: str) -> tuple[int, ...]:
        """https://docs.github.com/rest/pulls/pulls#list-pull-requests, one request for each 100 that are open.

        The list of issues could be asked for a label, but takes the permission `issues`, which nothing else here needs.
        """
        wanted = label_name(label).lower()
        with answer_of("the open pull requests"):
            found = self._repository.get_pulls(state="open")
            return tuple(sorted(one.number for one in found if wanted in [own.name.lower() for own in one.labels]))

    def remove_label(self, number: int, label: str) -> None:
        """https://docs.github.com/rest/issues/labels#remove-a-label-from-an-issue

        Sent by hand: PyGithub leaves the slash of a name like `train/cluster` as it is, which is another address.
        """
        url = f"{self._repository.url}/issues/{number}/labels/{quote(segment(label), safe='')}"
        missing_is_none(lambda: self._http.requestJsonAndCheck("DELETE", url))

    # ------------------------------------------------------------------- checks

    def find_checks(self, sha: str, name: str | None = None) -> tuple[CheckRef, ...]:
        """https://docs.github.com/rest/checks/runs#list-check-runs-for-a-git-reference, all of them, not only the latest."""
        with answer_of("the checks"):
            return tuple(check_ref(run) for run in self._our_runs(sha, name))

    def _our_runs(self, sha: str, name: str | None) -> list[CheckRun]:
        commit = self._repository.get_commit(segment(sha))
        runs = commit.get_check_runs(check_name=name, filter="all") if name else commit.get_check_runs(filter="all")
        ours = [run for run in runs if run.app is not None and run.app.slug == self._account.app_slug]
        return sorted(ours, key=lambda run: run.id, reverse=True)

    def create_check(self, check: Check) -> CheckRef:
        """https://docs.github.com/rest/checks/runs#create-a-check-run"""
        first, rest = check.annotations[:ANNOTATIONS_PER_REQUEST], check.annotations[ANNOTATIONS_PER_REQUEST:]
        with answer_of("the new check"):
            made = self._http.once(
                lambda: self._repository.create_check_run(head_sha=check.sha, **check_fields(check, first, self._has_buttons)),
                lambda: next((run for run in self._our_runs(check.sha, check.name) if run.external_id == check.external_id), None),
            )
            return check_ref(self._annotate(made, check, rest))

    def update_check(self, check_id: int, check: Check) -> CheckRef | None:
        """https://docs.github.com/rest/checks/runs#update-a-check-run

        GitHub adds annotations to those that are there: give each only once.
        """
        first, rest = check.annotations[:ANNOTATIONS_PER_REQUEST], check.annotations[ANNOTATIONS_PER_REQUEST:]
        with answer_of("the check"):
            run = missing_is_none(lambda: self._edit_check(check_id, check, first, None))
            return check_ref(self._annotate(run, check, rest)) if run is not None else None

    def _annotate(self, run: CheckRun, check: Check, annotations: Sequence[Annotation]) -> CheckRun:
        """Adds annotations to a check that is otherwise as wanted, 50 a request."""
        for start in range(0, len(annotations), ANNOTATIONS_PER_REQUEST):
            some = annotations[start : start + ANNOTATIONS_PER_REQUEST]
            run = self._edit_check(run.id, check, some, run.output.annotations_count + len(some))
        return run

    def _edit_check(self, check_id: int, check: Check, annotations: Sequence[Annotation], expected: int | None) -> CheckRun:
        """One PATCH. `expected`: how many annotations there will be, if known, to recognise that a lost answer's PATCH was heard."""
        from github.CheckRun import CheckRun

        fields = check_fields(check, annotations, self._has_buttons, replaces=True)

        def change() -> CheckRun:
            run = CheckRun(self._http, url=f"{self._repository.url}/check-runs/{check_id}")
            run.edit(**fields)
            return run

        def look() -> CheckRun | None:
            run = self._repository.get_check_run(check_id)
            count = run.output.annotations_count
            heard = count == expected if expected is not None else count >= len(annotations)
            output = run.output
            shown = (run.status, run.conclusion, output.title, (output.summary or "").strip(), (output.text or "").strip())
            sent = fields["output"]
            wanted = (check.status, check.conclusion, check.title, sent["summary"].strip(), sent["text"].strip())
            return run if heard and shown == wanted else None

        # Only annotations add up; without them the same PATCH twice is the same as once, and the transport repeats it.
        return self._http.once(change, look) if annotations else change()
