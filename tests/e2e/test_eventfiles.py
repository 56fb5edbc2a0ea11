"""A job that writes event files and a W&B summary, and no results file: the terminal says how it went by the recipe's rules."""

from __future__ import annotations

import base64
import json
import subprocess
import zlib
from pathlib import Path

from dispatcher.errors import Exit
from tests.e2e.test_terminal import LOCAL, NO_GITHUB
from tests.github_server import GitHubServer
from tests.here import run_here
from tests.rig.sshd import Sshd
from tests.stage import Stage

WRITTEN = next((Path(__file__).parents[1] / "data" / "tensorboard").iterdir()).read_bytes()
POLICY = """\
default_profile: local
recipes:
  default:
    script: train.py
    entrypoint: python3
    tensorboard: out/tb
    series: made/metrics.jsonl
    wandb_summary: wandb/latest-run/files/wandb-summary.json
    metrics:
      train/loss: { max: 1.4 }
      eval/acc: { min: 0.9 }
      wer.min: { max: 0.2 }
"""
TRAIN = f"""\
import base64, json, os, pathlib, zlib
folder = pathlib.Path(os.environ["DISPATCH_TENSORBOARD"])
assert not list(folder.glob("events.*")), "what the commit brought along is still there"
written = zlib.decompress(base64.b64decode("{base64.b64encode(zlib.compress(WRITTEN)).decode()}"))
(folder / "events.out.tfevents.1700000000.first").write_bytes(written[:-9])
(folder / "events.out.tfevents.1700000100.second").write_bytes(written)
open(os.environ["DISPATCH_SERIES"], "w").write('{{"step": 5, "name": "mfu(%)", "value": 41.5}}\\n')
files = pathlib.Path("wandb/run-20261130_120000-abc/files")
files.mkdir(parents=True)
pathlib.Path("wandb/latest-run").symlink_to("run-20261130_120000-abc")
(files / "wandb-summary.json").write_text(json.dumps({{"wer": {{"min": 0.25}}, "_step": 5, "_runtime": 9.5}}))
"""


def test_rules_judge_what_they_say(github: GitHubServer, cluster_sshd: Sshd, tmp_path: Path) -> None:
    stage = Stage(github, cluster_sshd, tmp_path, policy=POLICY, extra={"train.py": TRAIN, "out/tb/events.out.tfevents.9": "old"})
    folder = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", str(stage.repo.git_dir), str(folder)], check=True, capture_output=True)
    (folder / "profiles" / "local.yaml").write_text(LOCAL)
    away = {"DISPATCH_SSH_KEY": "", "DISPATCH_SSH_KNOWN_HOSTS": "", "DISPATCH_STATE_DIR": str(tmp_path / "state")}
    ended = run_here(stage, "submit", "profile=local", "--json", folder=folder, **{**NO_GITHUB, "USER": "carol", **away})
    told = json.loads(ended.stdout)
    assert told["result"] == {
        "train/loss": 1.5,
        "eval/acc": 0.9,
        "eval/f1": 0.8,
        "grad": "NaN",
        "scale": "Infinity",
        "wer.min": 0.25,
        "mfu(%)": 41.5,
    }
    assert (ended.code, told["state"]) == (Exit.RUN_FAILED, "succeeded")
    for words in (
        "ended well, but train/loss 1.5 is above 1.4",
        "| ✅ | eval/acc | 0.9 |",
        "| ❌ | wer.min | 0.25 |",
        "train/loss █▇▅▃▁ 1.5 to 1.9, steps 1 to 5",
        "2 lines or records of the series could not be read",  # the one that was cut off, and a tag that is no name
    ):
        assert words in told["summary"], told["summary"]
