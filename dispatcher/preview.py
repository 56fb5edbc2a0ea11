"""A plan and what NeMo-Run made of it → the preview, as Markdown: what would run where, what would travel, the script that sbatch gets."""

from __future__ import annotations

from dispatcher.phrases import duration, plural, size
from dispatcher.plan import JobPlan
from dispatcher.ports import Compiled
from dispatcher.untrusted import code, fence, neutralise

SHOWN_FILES = 20


def preview(job: JobPlan, compiled: Compiled, upload: str | None = None, estimate: str | None = None) -> str:
    """The whole preview; `upload` and `estimate` are known only where the cluster was asked."""
    asked = job.resources
    hours = f" = {asked.gpu_hours:.3g} GPU-hours" if asked.gpu_hours else ""
    where = [f"`{job.profile_name}` on {code(job.profile.address)}"]
    where += [f"partition {neutralise(asked.partition)}"] if asked.partition else []
    where += [f"{asked.nodes} × {plural(asked.gpus_per_node, 'GPU')}" if asked.gpus_per_node else plural(asked.nodes, "node")]
    where += [f"at most {duration(asked.seconds)}{hours}"] if asked.seconds else []
    where += [f"image {code(job.container_image)}"] if job.container_image else []
    overrides = "".join(" " + code(override.word) for override in job.overrides)
    package = job.package
    packed = f"{plural(len(package.files), 'file')}, {size(package.size)}" + (f", {upload}" if upload else "")
    rows = [
        ("What", f"`{job.recipe_name}` ({code(job.recipe.program)}) at `{job.grant.sha[:12]}`{overrides}"),
        ("Where", " · ".join(where)),
        ("Packed", packed),
        ("Folder", code(job.run_dir)),
        ("Keys", f"run `{job.run_key}` · content `{job.content_key[:16]}` · package `{package.digest[:16]}`"),
    ]
    rows += [("Start", neutralise(estimate))] if estimate else []
    lines = [
        f"### Preview: {job.recipe_name} on {job.profile_name}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
    ]
    if package.lfs_pointers:
        some = ", ".join(code(path) for path in package.lfs_pointers[:5])
        lines += ["", f"⚠️ {plural(len(package.lfs_pointers), 'Git LFS pointer')} would travel instead of the files they stand for: {some}"]
    largest = sorted(package.files, key=lambda entry: (-entry.size, entry.path))[:SHOWN_FILES]
    lines += ["", f"<details><summary>The {plural(len(largest), 'largest file')}</summary>", ""]
    lines += [fence("\n".join(f"{size(max(entry.size, 0)):>10}  {entry.path}" for entry in largest)), "", "</details>"]
    lines += [
        "",
        "<details open><summary>The script</summary>",
        "",
        fence(compiled.script, "bash"),
        "",
        "</details>",
        "",
        "Nothing was submitted.",
    ]
    return "\n".join(lines)
