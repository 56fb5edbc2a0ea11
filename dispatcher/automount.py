"""`${auto_mount:git+https://host/repository.git@COMMIT,/opt/there}` → what is cloned, and the shell lines with which the job does that.

Nemotron clones at any branch, over its connection, while it submits. Here the commit is pinned and the job's first node clones, into a
folder that is named after the commit, so that one clone serves all later jobs. What is mounted is a copy in the run's own folder: programs
build things beside their sources, and a job must not find what another one has left there.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from dispatcher.untrusted import code

_SPEC = re.compile(r"\$\{\s*auto_mount:\s*git\+(?P<url>[^@,{}\s]+)@(?P<ref>[^@,{}\s]+)\s*(?:,\s*(?P<target>[^,{}\s]+)\s*)?\}")
# No user, no port's worth of surprises, no query: what a policy's pattern can be read against.
_URL = re.compile(r"https://[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9_.~-]+)+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TARGET = re.compile(r"(?!/nemo_run(?:/|$))(?!.*/\.{1,2}(?:/|$))(?:/[A-Za-z0-9_.@+-]+)+")


@dataclass(frozen=True)
class GitMount:
    """A repository at a commit, and where it lies in the container."""

    url: str
    commit: str
    target: str

    @property
    def words(self) -> str:
        """As it is shown."""
        return f"{self.url}@{self.commit} at {self.target}"

    def folder(self, above: str) -> str:
        """Where it lies on the cluster, in the ledger's folder and in the run's: one folder for each commit."""
        return f"{above}/repositories/{self.commit}"

    def container_mount(self, run_dir: str) -> str:
        """What the container gets."""
        return f"{self.folder(run_dir)}:{self.target}"


def parse_mount(text: str) -> GitMount | str | None:
    """An entry of `run.env.mounts` → the mount, or what is wrong with it; None for an entry of another kind."""
    if "auto_mount" not in text:
        return None
    found = _SPEC.fullmatch(text.strip())
    if found is None:
        return f"{code(text)} is not written `${{auto_mount:git+https://host/repository.git@COMMIT,/opt/there}}`"
    url, ref, target = found["url"], found["ref"], found["target"] or ""
    if not _URL.fullmatch(url) or len(url) > 512:
        return f"{code(url)} is not an https address without a user in it"
    if not _COMMIT.fullmatch(ref):
        return f"{code(ref)} is not a commit's full SHA (40 hex digits): a branch or a tag can be moved after somebody has looked at it"
    if not _TARGET.fullmatch(target) or len(target) > 512:
        return f"{code(target)} is not a folder for a container outside of `/nemo_run`; one is needed: `…@COMMIT,/opt/there`"
    return GitMount(url, ref, target)


def mount_lines(mount: GitMount, job_dir: str, run_dir: str) -> list[str]:
    """Bash that clones what is not there yet, and copies it for the run. A failure ends the job.

    Each folder comes into being whole or not at all, however many jobs, or tasks of an array, are at it.
    """
    kept, own = mount.folder(job_dir), mount.folder(run_dir)
    new = _unfinished(kept)
    git = f"GIT_TERMINAL_PROMPT=0 git -c core.hooksPath=/dev/null -c advice.detachedHead=false -C {new}"
    steps = [
        f"mkdir -p {new}",
        f"{git} init -q",
        f"{git} fetch -q --depth 1 --no-tags -- {shlex.quote(mount.url)} {mount.commit}",
        f"{git} checkout -q --detach FETCH_HEAD",
        f'[ "$({git} rev-parse HEAD)" = {mount.commit} ]',
    ]
    failed = shlex.quote(f"{mount.url} could not be cloned at {mount.commit} on the job's first node.")
    copied = [f"mkdir -p {shlex.quote(run_dir)}/repositories", f"cp -R {shlex.quote(kept)} {_unfinished(own)}"]
    return [
        _made(kept, steps, f"echo {failed}; exit 1"),
        _made(own, copied, "exit 1"),
    ]


def _unfinished(folder: str) -> str:
    """A shell word for a folder of this job's alone, beside the one that it will become."""
    above, _, name = folder.rpartition("/")
    return shlex.quote(f"{above}/.{name}.") + '"$SLURM_JOB_ID"'


def _made(folder: str, steps: list[str], failed: str) -> str:
    """Does the steps, then gives the folder its name; if another job was quicker, its folder stays."""
    new, place = _unfinished(folder), shlex.quote(folder)
    done = f"{{ mv -T {new} {place} 2>/dev/null || {{ [ -d {place} ] && rm -rf {new}; }}; }}"
    return f"[ -d {place} ] || {{ rm -rf {new} && {' && '.join(steps)} && {done}; }} || {{ rm -rf {new}; {failed}; }}"
