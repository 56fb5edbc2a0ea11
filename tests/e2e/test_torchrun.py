"""torchrun over two nodes: the line that NeMo-Run renders, started by Slurm for real; and, where torch is installed, torch itself."""

from __future__ import annotations

import json
from pathlib import Path

from tests.github_server import GitHubServer
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import Stage

POLICY = """\
default_profile: cluster
recipes:
  default: { script: train.py, launcher: torchrun, nproc_per_node: 2 }
watch: { profiles: [cluster] }
"""

# Stands in for torchrun where there is no torch: leaves what it was given, one file for each node that started it.
RECORDER = """\
#!/bin/sh
{ printf '%s\\n' "$SLURMD_NODENAME" "$@"; } > "$DISPATCH_RUN_DIR/seen.$SLURMD_NODENAME"
"""

TRAIN = """\
import json, os
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
total = torch.ones(1) * dist.get_rank()
dist.all_reduce(total)
if dist.get_rank() == 0:
    json.dump({"world": dist.get_world_size(), "sum": int(total.item())}, open(os.environ["DISPATCH_RESULTS"], "w"))
dist.destroy_process_group()
"""


def two_nodes(stage: Stage, folder: str) -> None:
    """The profile asks for two nodes and finds torchrun in `folder`."""
    # Torch alone takes some 550 MB in each of a node's processes; the rig's jobs have 100 MB where they ask for nothing.
    lines = f"nodes: 2\nmem: 3000M\nsetup_lines: 'export PATH={folder}:$PATH'\n"
    stage.repo.commit("main", {"profiles/cluster.yaml": stage.profile + lines})


def test_the_rendered_line_starts_one_torchrun_on_each_node(
    github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path
) -> None:
    stage = Stage(github, cluster_sshd, tmp_path, policy=POLICY)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "torchrun").write_text(RECORDER)
    (tmp_path / "bin" / "torchrun").chmod(0o755)
    two_nodes(stage, str(tmp_path / "bin"))
    ended = stage.comment('/train "name=it\'s $HOME"')
    assert ended.code == 0, ended
    slurm.wait_for_state(ended.outputs["job-id"], "COMPLETED")
    run_dir = stage.job_dir / "runs" / ended.outputs["run-key"]
    seen = [file.read_text().splitlines() for file in sorted(run_dir.glob("seen.*"))]
    assert len({lines[0] for lines in seen}) == 2
    for _, *argv in seen:
        options = dict(zip(argv[0:14:2], argv[1:14:2], strict=True))
        assert (options["--nnodes"], options["--nproc-per-node"]) == ("2", "2")
        assert options["--rdzv-backend"] == "c10d"
        assert argv[14:] == ["train.py", "name=it's $HOME"]


def test_torch_computes_over_two_nodes(
    github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path, torch_python: Path
) -> None:
    stage = Stage(github, cluster_sshd, tmp_path, policy=POLICY, extra={"train.py": TRAIN})
    stage.repo.commit("feature", {"train.py": TRAIN})
    two_nodes(stage, str(torch_python.parent))
    ended = stage.comment("/train")
    assert ended.code == 0, ended
    slurm.wait_for_state(ended.outputs["job-id"], "COMPLETED", timeout=120)
    swept = stage.run("watch")
    assert swept.code == 0, swept
    results = stage.job_dir / "runs" / ended.outputs["run-key"] / "code" / "results.json"
    assert json.loads(results.read_text()) == {"world": 4, "sum": 6}
    assert "**world 4**" in stage.answers[0]
