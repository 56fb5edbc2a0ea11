"""Recipes and profiles that people have: Nemotron's stages and env.toml, NeMo-Run's first examples, planned and compiled as they are.

`tests/data/nemotron` is laid out as Nemotron's repository, with scripts and configurations of our own after its documentation; profiles are
`tests/data/env-toml/guide.toml`. NeMo-Run compiles each of them; what has to be in the script is in the table.
https://github.com/NVIDIA-NeMo/Nemotron/tree/main/src/nemotron/recipes, https://github.com/NVIDIA-NeMo/Run/tree/main/docs/guides
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from dispatcher.cli import main
from dispatcher.errors import Exit
from tests.rig.gitrepo import Repo

DATA = Path(__file__).parents[1] / "data"
STAGES = "src/nemotron/recipes/nano3"

# What is asked for → what the preview has: lines of the script and of the configuration, as patterns.
PLANNED: dict[str, tuple[str, ...]] = {
    "recipe=pretrain config=tiny train.train_iters=7": (
        r"^#SBATCH --account=my-account$",
        r"^#SBATCH --partition=backfill$",
        r"^#SBATCH --nodes=2$",
        r"^#SBATCH --mem=0$",
        r"^#SBATCH --exclusive$",
        r"^source /opt/env.sh$",
        r"^srun .*--container-image nvcr.io/nvidia/nemo:25.11-nano --container-mounts /lustre:/lustre,\S+:/nemo_run ",
        rf"^srun .* torchrun .*--nnodes 2 --nproc-per-node 8 .*{STAGES}/stage0_pretrain/train.py --config /nemo_run/configs/train.yaml$",
        r"^  train_iters: 7$",
        r"^  per_split_data_args_path: \$\{art:data,path\}/blend.json$",
        r"^  wandb_project: nemotron$",
    ),
    "recipe=prep profile=data-prep": (
        r"^#SBATCH --partition=cpu$",
        r"^#SBATCH --cpus-per-task=96$",
        rf"^srun .*--container-image nvcr.io/nvidia/nemo-curator:25.09 .*ray.sh .* python {STAGES}/stage0_pretrain/data_prep.py --config",
        r"^output_dir: /nemo_run/output$",
    ),
    "recipe=sft profile=pretrain-large": (
        r"^#SBATCH --nodes=8$",
        r"^#SBATCH --time=08:00:00$",
        rf"^srun .* torchrun .*--nnodes 8 --nproc-per-node 8 .*{STAGES}/stage1_sft/train.py --config ",
        r"^  save: /nemo_run/code/../output/sft$",
        r"^dry_run: true$",
    ),
    "recipe=rl profile=rl grpo.num_iterations=1": (
        rf"^srun .*--container-image /lustre/users/me/nano3-rl.sqsh .*ray.sh .* uv run --no-project {STAGES}/stage2_rl/train.py --config ",
        r"^  num_iterations: 1$",
        r"^  model_name: \$\{art:model,path\}$",
    ),
    "recipe=pretrain run.nodes=4 run.time=01:00:00": (r"^#SBATCH --nodes=4$", r"^#SBATCH --time=01:00:00$", r"--nnodes 4 "),
    "recipe=hello": (r"^srun .* bash \S+/scripts/inline$",),
    "recipe=script": (r"^srun .*--chdir \S+/code .* bash examples/hello.sh world$",),
    "recipe=module": (r"^srun .* torchrun .*--nproc-per-node 8 .*-m examples.train --steps 10$",),
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nemotron") / "repo"
    repo = Repo.create(folder)
    shutil.copytree(DATA / "nemotron", folder, dirs_exist_ok=True)
    shutil.copy(DATA / "env-toml" / "guide.toml", folder / "env.toml")
    repo.commit()
    return folder


@pytest.fixture(autouse=True)
def _somebodys_terminal(monkeypatch: pytest.MonkeyPatch, checkout: Path, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("GITHUB_", "DISPATCH_", "SSH_", "RUNNER_", "NEMOTRON_", "ACTIONS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DISPATCH_STATE_DIR", str(tmp_path / "state"))
    # As in a folder of Nemotron's repository, which has env.toml at its top.
    monkeypatch.chdir(checkout / STAGES)


@pytest.mark.parametrize("words", PLANNED)
def test_it_is_planned_and_compiled(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words.split(), "--json"]) == Exit.OK
    told = json.loads(capsys.readouterr().out)
    for pattern in PLANNED[words]:
        assert re.search(pattern, told["summary"], re.MULTILINE), pattern


def test_every_profile_and_the_policy_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check"]) == Exit.OK
    assert "0 problems" in capsys.readouterr().out
