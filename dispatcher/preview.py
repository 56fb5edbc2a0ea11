"""A plan and what NeMo-Run made of it → the preview, as Markdown: what would run where, what would travel, the script that sbatch gets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from dispatcher.jobconfig import JobConfig, kept
from dispatcher.jobplan import JobPlan
from dispatcher.launch import LAUNCH_FILE
from dispatcher.packing import package_spec
from dispatcher.phrases import WITH_CHANGES, duration, plural, size
from dispatcher.ports import Compiled
from dispatcher.profile import CloudProfile, SlurmProfile
from dispatcher.record import RunRecord
from dispatcher.runtable import after_words, longest_words
from dispatcher.squash import started_from
from dispatcher.untrusted import cap, code, fence, neutralise

SHOWN_FILES = 20
# Bytes of the configuration: a comment has room for 65,536 characters, and the script is shown too.
SHOWN_CONFIG = 16_000


def preview(
    job: JobPlan,
    compiled: Compiled,
    upload: str | None = None,
    estimate: str | None = None,
    since_last: Sequence[str] | None = None,
    approval: str | None = None,
    silent: str = "",
) -> str:
    """The whole preview. `upload`, `estimate` and `since_last` are known only where the cluster answered; `silent` says why it did not."""
    rows = _rows(job, upload)
    rows += [("Start", neutralise(estimate))] if estimate else []
    rows += [("Start", f"the cluster could not be asked (`{silent}`)")] if silent else []
    rows += [("Approval", f"a second person has to agree (rule {code(approval)})")] if approval else []
    if since_last is not None:
        rows += [("Since the last run", "<br>".join(since_last) if since_last else "nothing has changed")]
    lines = [
        f"### Preview: {job.name} on {job.profile_name}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
    ]
    pointers = job.package.lfs_pointers
    if pointers:
        some = ", ".join(code(path) for path in pointers[:5])
        lines += ["", f"⚠️ {plural(len(pointers), 'Git LFS pointer')} would travel instead of the files they stand for: {some}"]
    return "\n".join([*lines, *_whole_texts(job, compiled), "", "Nothing was submitted."])


def _rows(job: JobPlan, upload: str | None) -> list[tuple[str, str]]:
    """What the plan itself says, each in a line."""
    overrides = " · " + " ".join(code(override.word) for override in job.overrides) if job.overrides else ""
    changed = f" {WITH_CHANGES}" if job.package.uncommitted else ""
    rows = [
        ("What", f"`{job.name}` ({code(job.recipe.program)}) at `{job.grant.sha[:12]}`{changed}{overrides}"),
        ("Where", " · ".join(_where(job))),
        ("Packed", _packed(job) + (f"; to send: {upload}" if upload else "")),
        ("Folder", code(job.run_dir)),
        ("Keys", f"run `{job.run_key}` · content `{job.content_key[:16]}` · package `{job.package.digest[:16]}`"),
    ]
    rows += [("After", _after(job))] if job.grant.stage and job.grant.stage.after else []
    if job.chain:
        rows += [("Chain", f"a job that its time limit ends is continued from what it has saved in {code(job.chain.checkpoints)}")]
    rows += [("Configuration", _configuration(job.config))] if job.config is not None else []
    rows += [("From the script", _from_script(job))] if job.from_script or job.not_from_script or job.own_runspec else []
    return rows


def _whole_texts(job: JobPlan, compiled: Compiled) -> list[str]:
    """What is too long for a line, folded away: the profile, the configuration, the program, the files, the script, the request."""
    fields = _said(job.profile.model_dump(mode="json"))
    profile = "\n".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
    lines = _folded("The resolved profile", fence(profile, "yaml"))
    if job.config is not None:
        language = "json" if job.config.composed.spec.format == "json" else "yaml"
        lines += _folded("The configuration", fence(cap(job.config.text(job.inside), SHOWN_CONFIG), language))
    if job.recipe.inline is not None:
        lines += _folded("The program", fence(cap(job.recipe.inline, SHOWN_CONFIG)))
    largest = sorted(job.package.files, key=lambda entry: (-entry.size, entry.path))[:SHOWN_FILES]
    files = "\n".join(f"{size(max(entry.size, 0)):>10}  {_in_one_line(entry.path)}" for entry in largest)
    lines += _folded(f"The {plural(len(largest), 'largest file')}", fence(files))
    lines += _folded("The script", fence(compiled.script, "bash"))
    if isinstance(job.profile, CloudProfile):
        for file in (file for file in compiled.files if file.path != LAUNCH_FILE):
            lines += _folded("What the API is sent", fence(cap(file.content.decode("utf-8", "replace"), SHOWN_CONFIG), "yaml"))
    return lines


def _where(job: JobPlan) -> list[str]:
    """What it asks for, in words."""
    asked = job.resources
    where = [f"`{job.profile_name}` on {code(job.profile.address)}"]
    where += [f"partition {neutralise(asked.partition)}"] if asked.partition else []
    where += [f"{asked.nodes} × {plural(asked.gpus_per_node, 'GPU')}" if asked.gpus_per_node else plural(asked.nodes, "node")]
    where += [longest_words(asked)] if asked.seconds else []
    return where + ([f"image {code(job.container_image)}{_imported(job)}"] if job.container_image else [])


def _imported(job: JobPlan) -> str:
    """Where the image lies that the job starts from, when that is not what it is named by."""
    if not isinstance(job.profile, SlurmProfile) or job.container_image is None:
        return ""
    file = started_from(job.container_image, job.profile.squash)
    return "" if file == job.container_image else f" from {code(file)}"


def _after(job: JobPlan) -> str:
    """What a stage waits for, and who waits."""
    place = job.grant.stage
    assert place is not None
    words = after_words(place.after, place.when)
    by_slurm = any(earlier.job for earlier in job.earlier)
    return f"{words}; Slurm waits" if by_slurm else f"{words}; it lies ready until then, and the sweep starts it"


def _folded(summary: str, body: str) -> list[str]:
    return ["", f"<details><summary>{summary}</summary>", "", body, "", "</details>"]


def _configuration(config: JobConfig) -> str:
    """Which files it is merged from, what overrides did to it, and what is left to the script."""
    composed = config.composed
    first, *others = composed.files
    words = [code(first) + (f" over {', '.join(code(path) for path in others)}" if others else "")]
    given = config.facts.cli["dotlist"]
    words += [f"{plural(len(given), 'override')} merged into it, none is an argument"] if given else []
    words += [f"new keys: {', '.join(code(key) for key in composed.added)}"] if composed.added else []
    left = kept(config.content) if composed.spec.format == "omegaconf" else ()
    words += [f"for the script to resolve: {', '.join(code(f'${{{name}:…}}') for name in left)}"] if left else []
    return " · ".join(words)


def _from_script(job: JobPlan) -> str:
    """What the script says for itself."""
    said = " · ".join(code(f"{key} = {value}") for key, value in job.from_script) or "nothing"
    said += f"; not taken: {', '.join(code(key) for key in job.not_from_script)}" if job.not_from_script else ""
    return said + ("; not as on the default branch, so no gate counts it" if job.own_runspec else "")


def _packed(job: JobPlan) -> str:
    """How much of the commit travels, and by which packager where it is not the usual one."""
    kind = package_spec(job.recipe, job.profile).kind
    if kind == "none":
        return "nothing (`none`): what runs is there already"
    by = "" if kind == "git" else f" by `{kind}`"
    return f"{plural(len(job.package.files), 'file')}{by}, {size(job.package.size)}"


def _in_one_line(path: str) -> str:
    """A file's name may have line ends in it, and a line of its own may be a marker, by which our comments are found."""
    return " ".join(path.splitlines())


def _said(fields: Mapping[str, object]) -> dict[str, object]:
    """What a profile says: without what is empty, false or not set."""
    found = {name: _said(value) if isinstance(value, dict) else value for name, value in fields.items()}
    return {name: value for name, value in found.items() if value not in (None, "", [], {}, False)}


def differences(job: JobPlan, last: RunRecord) -> list[str]:
    """What is not as it was in the last run of this kind, each in Markdown; empty when nothing is."""
    asked, before = job.resources, last.resources
    pairs: list[tuple[str, object, object]] = [
        ("commit", last.sha[:12], job.grant.sha[:12]),
        ("packed files", last.digest[:12], job.package.digest[:12]),
        ("nodes", before.nodes, asked.nodes),
        ("GPUs a node", before.gpus_per_node, asked.gpus_per_node),
        ("time limit", duration(before.seconds), duration(asked.seconds)),
        ("partition", before.partition or "-", asked.partition or "-"),
        ("program", last.program, job.recipe.program),
    ]
    found = [f"{name}: {code(str(old))} → {code(str(new))}" for name, old, new in pairs if old != new]
    words = [override.word for override in job.overrides]
    found += [f"no more {code(word)}" for word in last.overrides if word not in words]
    found += [f"new {code(word)}" for word in words if word not in last.overrides]
    same = not found and last.content_key == job.content_key
    return found if found or same else ["another field of the profile or the recipe"]
