"""The preview: everything that would be submitted, as Markdown in which nothing acts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dispatcher.launch import LAUNCH_FILE
from dispatcher.ports import Compiled, CompiledFile
from dispatcher.preview import SHOWN_FILES, preview
from dispatcher.recipe import Recipe
from tests.fakes import HEAD, cloud_plan, entry, package
from tests.unit.test_plan import LOCAL, planned, slurm

SCRIPT = Compiled("#!/bin/bash\n#SBATCH --account=ml\nsrun python train.py\n")


def row(text: str, name: str) -> str:
    [found] = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return found


def test_the_whole_of_it() -> None:
    job = planned(slurm(nodes=2, gpus_per_node=8, container_image="a.sqsh"), Recipe(script="train.py"), "a=1")
    text = preview(job, SCRIPT)
    assert text.splitlines()[0] == "### Preview: default on cluster"
    assert row(text, "What") == f"| What | `default` (`train.py`) at `{HEAD[:12]}` · `a=1` |"
    assert row(text, "Where") == (
        "| Where | `cluster` on `ci@login.example.com` · partition batch · 2 × 8 GPUs · at most 4h = 64 GPU-hours · image `a.sqsh` |"
    )
    assert row(text, "Packed") == "| Packed | 2 files, 20 B |"
    assert row(text, "Folder") == f"| Folder | `/jobs/runs/{job.run_key}` |"
    assert job.run_key in row(text, "Keys")
    assert SCRIPT.script in text
    assert text.splitlines()[-1] == "Nothing was submitted."


def test_an_inline_program_is_shown() -> None:
    text = preview(planned(slurm(), Recipe(inline="echo 1\n```\n<!-- x -->\n@everybody\n")), SCRIPT)
    assert row(text, "What").startswith("| What | `default` (`inline bash`)")
    at = text.index("The program")
    assert text.index("````", at) < text.index("echo 1\n```", at) < text.index("<!\u200b-- x -->", at) < text.index("\n````\n", at + 40)


def test_what_an_api_would_be_sent_is_shown_and_breaks_out_of_nothing() -> None:
    compiled = Compiled("#!/bin/bash\ntrue\n", (CompiledFile("configs/trainjob.yaml", b"kind: TrainJob\nnote: '```'\n"),))
    compiled = Compiled(compiled.script, (*compiled.files, CompiledFile(LAUNCH_FILE, b"{}")))
    text = preview(cloud_plan(executor="kubeflow"), compiled)
    assert "<summary>What the API is sent</summary>\n\n````yaml\nkind: TrainJob" in text
    assert text.count("What the API is sent") == 1, "what is kept in the ledger is not sent"
    assert "What the API is sent" not in preview(planned(slurm()), compiled), "those of Slurm are NeMo-Run's own notes"


@pytest.mark.parametrize(
    ("profile", "where"),
    [
        (slurm(partition=None), "`cluster` on `ci@login.example.com` · 1 node · at most 4h"),
        (slurm(nodes=3, tunnel="local"), "`cluster` on `this machine's Slurm` · partition batch · 3 nodes · at most 4h"),
        (LOCAL, "`cluster` on `this machine` · 1 node · at most 1h"),
    ],
)
def test_where(profile: object, where: str) -> None:
    assert row(preview(planned(profile), SCRIPT), "Where") == f"| Where | {where} |"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("packager", "words"),
    [
        ("git", "| Packed | 2 files, 20 B |"),
        ({"type": "pattern", "include_pattern": "*"}, "| Packed | 2 files by `pattern`, 20 B |"),
        ("none", "| Packed | nothing (`none`): what runs is there already |"),
    ],
)
def test_what_is_packed(packager: object, words: str) -> None:
    assert words in preview(planned(slurm(packager=packager)), SCRIPT)


def test_what_only_the_cluster_knows() -> None:
    text = preview(planned(), SCRIPT, upload="0 B in 0 files", estimate="sbatch: Job 5 to start at 2024 | @org/x")
    assert row(text, "Packed").endswith("20 B; to send: 0 B in 0 files |")
    assert row(text, "Start") == "| Start | sbatch: Job 5 to start at 2024 \\| @\u200borg/x |"


def test_the_largest_files_first() -> None:
    files = tuple(entry(f"f{number:02}", size=number) for number in range(SHOWN_FILES + 5))
    text = preview(replace(planned(), package=package(files)), SCRIPT)
    assert f"The {SHOWN_FILES} largest files" in text
    assert "      24 B  f24" in text
    assert "f04" not in text


def test_git_lfs_pointers_are_warned_of() -> None:
    text = preview(replace(planned(), package=replace(package(), lfs_pointers=("m.bin", "n.bin"))), SCRIPT)
    assert "⚠️ 2 Git LFS pointers would travel instead of the files they stand for: `m.bin`, `n.bin`" in text
    assert "LFS" not in preview(planned(), SCRIPT)


def test_names_and_scripts_stay_in_their_blocks() -> None:
    files = (entry("```\n### head\n<img src=x>"), entry("train.py"))
    text = preview(replace(planned(), package=package(files)), Compiled("```\n@org/everyone\n"))
    assert "````" in text
    assert text.count("<details") == text.count("</details>") == 3


def test_the_resolved_profile_says_everything_that_counts() -> None:
    text = preview(planned(LOCAL), SCRIPT)
    shown = text.partition("The resolved profile")[2].partition("</details>")[0]
    assert 'executor: "local"' in shown
    assert "time: " in shown
    assert "null" not in shown
