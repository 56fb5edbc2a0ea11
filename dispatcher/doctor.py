"""What a login node says about itself (probes) → findings for people: what is right, what is not, and what to change where."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dispatcher.phrases import size
from dispatcher.ports import CommandOutput, Probe
from dispatcher.profile import CloudProfile, LocalProfile, ResolvedProfile, SlurmProfile
from dispatcher.squash import is_file
from dispatcher.untrusted import printable

# Below this much free space a run's folder, its log and its package may not fit.
LITTLE_SPACE = 5 * 1000**3


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report; `place` is the file and line to change, where there is one."""

    mark: Literal["ok", "problem", "none"]
    name: str
    words: str
    place: str = ""


def findings(resolved: ResolvedProfile, probes: Sequence[Probe]) -> list[Finding]:
    """Everything that the probes tell about one profile."""
    said = {probe.name: probe.output for probe in probes}
    found = [_job_dir(resolved, said), _quota(said)]
    match resolved.profile:
        case SlurmProfile() as profile:
            found += [_slurm(said), _accounting(said), _account(resolved, profile, said), _partition(resolved, profile, said)]
            found.append(_containers(profile, said))
            found += _squash(resolved, profile, said)
        case LocalProfile():
            found.append(Finding("none", "scheduler", "runs are started on this machine"))
        case CloudProfile():
            found += [_api(probe) for probe in probes if probe.name.startswith("api.")]
    found += [Finding("none", note.key, note.words, str(note.place)) for note in resolved.notes]
    return found


def problems(found: Sequence[Finding]) -> int:
    """How many findings are problems."""
    return sum(finding.mark == "problem" for finding in found)


def rendered(found: Sequence[Finding]) -> list[str]:
    """Findings → aligned lines."""
    marks = {"ok": "✓", "problem": "✗", "none": "–"}
    lines: list[str] = []
    for finding in found:
        lines.append(f"  {marks[finding.mark]} {finding.name:<14} {finding.words}")
        if finding.place:
            lines.append(f"  {'':<16} → {finding.place}")
    count = problems(found)
    return [*lines, f"{count} problem{'' if count == 1 else 's'}. Nothing was submitted."]


def _job_dir(resolved: ResolvedProfile, said: Mapping[str, CommandOutput]) -> Finding:
    written = said.get("job_dir", CommandOutput(1, ""))
    if written.status != 0:
        return Finding("problem", "job_dir", f"cannot be written to: {_last(written)}", resolved.where("job_dir"))
    free = re.search(r"^\S+\s+\d+\s+\d+\s+(\d+)\s+\d+%", said.get("space", CommandOutput(1, "")).stdout, re.MULTILINE)
    if free is None:
        return Finding("ok", "job_dir", f"writable, {written.stdout.strip()}")
    room = int(free[1]) * 1024
    if room < LITTLE_SPACE:
        return Finding("problem", "job_dir", f"writable, but only {size(room)} are free", resolved.where("job_dir"))
    return Finding("ok", "job_dir", f"writable, {size(room)} free")


def _quota(said: Mapping[str, CommandOutput]) -> Finding:
    output = said.get("quota", CommandOutput(127, ""))
    if output.status == 127 or not output.stdout.strip():
        return Finding("none", "quota", "none is reported")
    if "*" in output.stdout:
        return Finding("problem", "quota", f"is used up: {_last(output)}")
    return Finding("ok", "quota", _last(output))


def _slurm(said: Mapping[str, CommandOutput]) -> Finding:
    version = said.get("sbatch", CommandOutput(127, ""))
    if version.status != 0:
        return Finding("problem", "slurm", f"`sbatch` does not answer: {_last(version)}")
    queue = said.get("squeue", CommandOutput(127, ""))
    if queue.status != 0:
        return Finding("problem", "slurm", f"{version.stdout.strip()}, but `squeue` does not answer: {_last(queue)}")
    return Finding("ok", "slurm", f"{version.stdout.strip().removeprefix('slurm-wlm ').removeprefix('slurm ')}: sbatch and squeue answer")


def _api(probe: Probe) -> Finding:
    """One thing that an executor's API says about itself."""
    words = _last(probe.output)
    return Finding("ok" if probe.output.status == 0 else "problem", probe.name.removeprefix("api."), words)


def _accounting(said: Mapping[str, CommandOutput]) -> Finding:
    output = said.get("sacct", CommandOutput(127, ""))
    if output.status != 0 or "accounting storage is disabled" in output.stdout + output.stderr:
        return Finding("none", "accounting", "`sacct` does not answer; ends are read from squeue, scontrol and the job's own exit status")
    return Finding("ok", "accounting", "sacct answers")


def _account(resolved: ResolvedProfile, profile: SlurmProfile, said: Mapping[str, CommandOutput]) -> Finding:
    output = said.get("account", CommandOutput(127, ""))
    known = sorted({line.split("|")[0] for line in output.stdout.splitlines() if line.split("|")[0]})
    if output.status != 0 or not known:
        return Finding("none", "account", f"`{profile.account}` cannot be checked here")
    if profile.account in known:
        return Finding("ok", "account", f"`{profile.account}`")
    return Finding("problem", "account", f"`{profile.account}` is not yours{_meant(profile.account, known)}", resolved.where("account"))


def _partition(resolved: ResolvedProfile, profile: SlurmProfile, said: Mapping[str, CommandOutput]) -> Finding:
    rows = [line.split("|") for line in said.get("partitions", CommandOutput(127, "")).stdout.splitlines() if "|" in line]
    known = sorted({row[0].rstrip("*") for row in rows})
    if not known:
        return Finding("none", "partition", "cannot be checked here: `sinfo` does not answer")
    for key in ("partition", "run_partition", "batch_partition"):
        named = getattr(profile, key)
        for name in (named or "").split(","):
            if name and name not in known:
                return Finding("problem", "partition", f"`{name}` does not exist{_meant(name, known)}", resolved.where(key))
    chosen = profile.partition_for(attached=False)
    return Finding("ok", "partition", f"`{chosen}`" if chosen else f"the cluster's default; there are {', '.join(known)}")


def _containers(profile: SlurmProfile, said: Mapping[str, CommandOutput]) -> Finding:
    has = said.get("pyxis", CommandOutput(127, "")).status == 0
    if profile.container_image is None:
        return Finding("none", "containers", "profile uses none")
    if has:
        return Finding("ok", "containers", f"Pyxis takes `{profile.container_image}`")
    return Finding("problem", "containers", "the profile names an image, but `srun` has no --container-image: Pyxis is not installed")


def _squash(resolved: ResolvedProfile, profile: SlurmProfile, said: Mapping[str, CommandOutput]) -> list[Finding]:
    """Whether the login node could import images; what compute nodes have is seen only by a job."""
    if profile.squash is None or all(is_file(image) for image in profile.images):
        return []
    if profile.squash.on == "job":
        return [Finding("none", "squash", f"jobs import into `{profile.squash.cache}`: their nodes need `enroot`")]
    if said.get("enroot", CommandOutput(127, "")).status == 0:
        return [Finding("ok", "squash", f"the login node imports into `{profile.squash.cache}`")]
    words = "the login node has no `enroot`, which `squash: { on: login }` needs"
    return [Finding("problem", "squash", words, resolved.where("squash"))]


def _meant(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    return (f"; did you mean `{near[0]}`? " if near else "; ") + f"there are: {', '.join(known[:8])}"


def _last(output: CommandOutput) -> str:
    lines = [line for line in printable(output.stderr + "\n" + output.stdout).splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "no answer"
