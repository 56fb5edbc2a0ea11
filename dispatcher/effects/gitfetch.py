"""An address and object ids → those objects in our object folder, over as few requests as git can do it with.

A commit comes with its trees and its small blobs only (a partial fetch): enough to say what would be packed. Larger blobs come when
they are packed, all that are missing in one request, which is what git itself does for a partial clone
(https://git-scm.com/docs/partial-clone). A server that cannot do so gets a plain `--depth=1` fetch.

The token goes to git through the environment of that one process, for that one host, and redirections are not followed with it.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dispatcher.errors import GitError
from dispatcher.giturl import GitUrl, may_have_token

SMALL = 16 * 1024
"""Blobs smaller than this many bytes come with the trees: scripts, .gitmodules, LFS pointers."""
ATTEMPTS = 3

_CONFIG = """\
[core]
\trepositoryformatversion = 1
\tbare = true
\tbigFileThreshold = 1m
\thooksPath = /dev/null
[extensions]
\tpartialClone = origin
[remote "origin"]
\tpromisor = true
[protocol]
\tversion = 2
\tallow = never
[protocol "{scheme}"]
\tallow = always
[fetch]
\tnegotiationAlgorithm = noop
\tunpackLimit = 1
\trecurseSubmodules = no
\twriteCommitGraph = false
[http]
\tlowSpeedLimit = 1000
\tlowSpeedTime = 30
[gc]
\tauto = 0
[maintenance]
\tauto = false
"""
_WHOLE_CONFIG = _CONFIG.replace("[extensions]\n\tpartialClone = origin\n", "").replace('[remote "origin"]\n\tpromisor = true\n', "")

# git's own words (LC_ALL=C) → our code; the first that fits. Only what may pass by itself is tried again.
_MEANINGS = (
    (r"not our ref|couldn't find remote ref|no such remote ref|unadvertised object|bad object", "git.commit-missing", False),
    (r"error: 30[1278]", "git.moved", False),
    (
        r"Authentication failed|could not read (Username|Password)|error: 40[134]|Repository not found|Permission denied|"
        r"Host key verification failed|does not appear to be a git repository|repository .* not found|Invalid username or token",
        "git.denied",
        False,
    ),
    (r"transport '.*' not allowed", "git.bad-url", False),
    (
        r"Could not resolve|Connection (refused|reset|timed out|closed)|Failed to connect|error: (429|5\d\d)|RPC failed|early EOF|"
        r"unexpected disconnect|hung up|Operation too slow|timed out|GnuTLS recv error|SSL_ERROR|Empty reply|HTTP/0\.9",
        "git.fetch-failed",
        True,
    ),
)


class _PassingError(GitError):
    """May work the next time."""


@dataclass
class Fetcher:
    """Fetches into one object folder. `env` is git's environment without a repository; `timeout` in seconds is for one attempt."""

    git: str
    env: dict[str, str]
    folder: Path
    root: GitUrl | None
    token: str | None
    timeout: float
    progress: Callable[[str], None]
    requests: int = 0

    def commit(self, url: GitUrl, sha: str) -> None:
        """Fetches a commit, its trees and its small blobs (everything, where the server cannot choose)."""
        try:
            self._fetch(url, ["--depth=1", f"--filter=blob:limit={SMALL}", "origin", sha], f"Fetching the files' list of {sha[:12]}")
        except GitError as error:
            if "filter" not in error.cause:
                raise
            self.whole_commit(url, sha)

    def whole_commit(self, url: GitUrl, sha: str) -> None:
        """Fetches a commit with everything in it."""
        self._fetch(url, ["--depth=1", "origin", sha], f"Fetching {sha[:12]}", config=_WHOLE_CONFIG)

    def blobs(self, url: GitUrl, oids: Sequence[str], sha: str) -> None:
        """Fetches exactly these blobs in one request; all of the commit `sha` from a server that does not hand out single blobs."""
        wanted = "".join(f"{oid}\n" for oid in oids).encode("ascii")
        try:
            self._fetch(url, ["--filter=blob:none", "--stdin", "origin"], f"Fetching {len(oids)} files", wanted)
        except GitError as error:
            if error.code not in ("git.commit-missing", "git.fetch-failed") or isinstance(error, _PassingError):
                raise
            self.whole_commit(url, sha)

    def _fetch(self, url: GitUrl, arguments: list[str], words: str, stdin: bytes = b"", config: str = _CONFIG) -> None:
        """One `git fetch`, repeated a little later when the failure is of the passing kind."""
        # Imported here because it takes 30 ms, and a checkout that has everything needs no fetch.
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

        options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"]
        attempts = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(max=4),
            retry=retry_if_exception_type(_PassingError),
            reraise=True,
        )
        self.progress(f"{words} from {url}")
        attempts(self._run, url, ["fetch", *options, *arguments], stdin, config)

    def _run(self, url: GitUrl, arguments: list[str], stdin: bytes, config: str) -> None:
        """Runs git in a new repository that knows nothing but this remote, and ends it with its children after the time is over."""
        self.requests += 1
        here = Path(tempfile.mkdtemp(prefix="fetch-", dir=self.folder))
        try:
            repository = make_repository(here / "git", config.format(scheme="ssh" if url.scheme == "scp" else url.scheme))
            env = {**self.env, **self._settings(url), "GIT_DIR": str(repository)}
            process = subprocess.Popen(
                [self.git, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=env,
                cwd=here,
                start_new_session=True,
            )
            try:
                _, words = process.communicate(stdin, timeout=self.timeout)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise GitError("git.timeout", f"{url} did not send what was asked for within {self.timeout:g} s.") from None
                raise
            if process.returncode:
                raise self._failure(url, words.decode("utf-8", "replace"))
        except OSError as error:
            raise GitError("git.not-found", f"{self.git} cannot be started: {error.strerror}.") from error
        finally:
            shutil.rmtree(here, ignore_errors=True)

    def _settings(self, url: GitUrl) -> dict[str, str]:
        """The remote, and the token if it may go there, as configuration in the environment (git ≥ 2.31): no command line, no file."""
        settings = {"remote.origin.url": str(url)}
        if self.token and self.root and may_have_token(url, self.root):
            settings[f"http.{url.scheme}://{url.host}/.extraHeader"] = f"Authorization: Basic {_basic(self.token)}"
            settings["http.followRedirects"] = "false"
        pairs = list(settings.items())
        env = {"GIT_CONFIG_COUNT": str(len(pairs)), "GIT_SSH_COMMAND": "ssh -oBatchMode=yes"}
        for index, (key, value) in enumerate(pairs):
            env |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
        return env

    def _failure(self, url: GitUrl, words: str) -> GitError:
        """What git said, as an error of ours; the token is not in it, and no more than its last lines are."""
        if self.token:
            words = words.replace(self.token, "***").replace(_basic(self.token), "***")
        words = re.sub(r"://[^/@\s]+@", "://***@", words)
        said = " ".join(line.strip() for line in words.splitlines()[-3:])[-400:] or "git said nothing"
        for pattern, code, passing in _MEANINGS:
            if re.search(pattern, words):
                return (_PassingError if passing else GitError)(code, f"{url}: {said}")
        return GitError("git.fetch-failed", f"{url}: {said}")


def make_repository(folder: Path, config: str) -> Path:
    """An empty bare repository (https://git-scm.com/docs/gitrepository-layout), without the process that `git init` would be."""
    (folder / "refs").mkdir(parents=True)
    (folder / "objects").mkdir()
    (folder / "HEAD").write_text("ref: refs/heads/none\n")
    (folder / "config").write_text(config)
    return folder


def _basic(token: str) -> str:
    """The token as GitHub wants it over HTTP: https://docs.github.com/en/rest/authentication ("x-access-token" as the user)."""
    return base64.b64encode(f"x-access-token:{token}".encode()).decode("ascii")
