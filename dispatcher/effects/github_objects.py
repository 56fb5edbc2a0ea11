"""PyGithub's objects → the port's values, and back; and what an answer that is not the expected one means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from dispatcher.errors import ForgeError
from dispatcher.fit import CHECK_BYTES, fit
from dispatcher.ports import Annotation, Check, CheckRef, Comment, PullRequest

if TYPE_CHECKING:
    from github.CheckRun import CheckRun
    from github.IssueComment import IssueComment
    from github.PullRequest import PullRequest as RemotePullRequest

LABEL_CHARACTERS = 50

T = TypeVar("T")


def pull_request(remote: RemotePullRequest) -> PullRequest:
    """https://docs.github.com/rest/pulls/pulls#get-a-pull-request"""
    return PullRequest(
        number=remote.number,
        state="open" if remote.state == "open" else "closed",
        draft=bool(remote.draft),
        head_sha=remote.head.sha,
        head_ref=remote.head.ref,
        head_repository=remote.head.repo.full_name if remote.head.repo else "",
        base_ref=remote.base.ref,
        base_sha=remote.base.sha,
        base_repository=remote.base.repo.full_name,
        author=remote.user.login if remote.user else "ghost",
        labels=tuple(label.name for label in remote.labels),
    )


def comment_of(remote: IssueComment) -> Comment:
    """https://docs.github.com/rest/issues/comments#get-an-issue-comment"""
    return Comment(id=remote.id, url=remote.html_url, body=remote.body or "")


def check_ref(run: CheckRun) -> CheckRef:
    """https://docs.github.com/rest/checks/runs#get-a-check-run"""
    return CheckRef(
        id=run.id,
        url=run.html_url or "",
        external_id=run.external_id or "",
        status=run.status,
        conclusion=run.conclusion,
        name=run.name,
        text=run.output.text or "",
        annotations=run.output.annotations_count or 0,
    )


def check_fields(check: Check, annotations: Sequence[Annotation], has_buttons: bool, replaces: bool = False) -> dict[str, Any]:
    """The arguments that PyGithub's create_check_run and edit share; what is None is left out, for GitHub refuses null.

    `replaces`: an empty text and no buttons are sent too, or those that stand there would stay.
    """
    fields: dict[str, Any] = {
        "name": check.name,
        "external_id": check.external_id,
        "status": check.status,
        "conclusion": check.conclusion,
        "details_url": check.details_url,
        "output": _output(check, annotations, replaces),
    }
    if has_buttons and (check.buttons or replaces):
        fields["actions"] = [{"label": one.label, "description": one.description, "identifier": one.identifier} for one in check.buttons]
    return {name: value for name, value in fields.items() if value is not None}


def _output(check: Check, annotations: Sequence[Annotation], replaces: bool) -> dict[str, Any]:
    """https://docs.github.com/rest/checks/runs#create-a-check-run (`output`)."""
    output: dict[str, Any] = {"title": check.title, "summary": fit(check.summary, CHECK_BYTES, "bytes")}
    if check.text or replaces:
        output["text"] = fit(check.text, CHECK_BYTES, "bytes")
    if annotations:
        output["annotations"] = [
            {
                "path": one.path,
                "start_line": max(one.line, 1),
                "end_line": max(one.line, 1),
                "annotation_level": one.level,
                "message": fit(one.message, CHECK_BYTES, "bytes"),
            }
            for one in annotations
        ]
    return output


# --------------------------------------------------------------------- answers that are not what was asked for


def missing_is_none(ask: Callable[[], T], also: tuple[str, ...] = ()) -> T | None:
    """What `ask` gives; None where GitHub says that there is no such thing (or one of the other codes)."""
    try:
        return ask()
    except ForgeError as problem:
        if problem.code in ("github.not-found", *also):
            return None
        raise


@contextmanager
def answer_of(what: str) -> Iterator[None]:
    """Turns what PyGithub raises over an answer of an unexpected shape into `github.bad-answer`."""
    from github.GithubException import BadAttributeException, GithubException

    try:
        yield
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError, BadAttributeException, GithubException) as problem:
        raise ForgeError(
            "github.bad-answer", f"GitHub's answer about {what} does not look as documented ({type(problem).__name__})."
        ) from problem


def segment(text: str) -> str:
    """The text, if it is safe as one part of an address: `..` would lead to another one. PyGithub quotes the rest."""
    if text in ("", ".", "..") or any(ord(letter) < 32 for letter in text):
        raise ForgeError("github.invalid", f"{text!r} cannot be part of a GitHub address.")
    return text


def label_name(text: str) -> str:
    """The text, if GitHub takes it as a label's name."""
    if not text.strip() or len(text) > LABEL_CHARACTERS or not text.isprintable():
        raise ForgeError("github.invalid", f"{text[:80]!r} cannot be a label: it takes 1 to {LABEL_CHARACTERS} printing characters.")
    return text
