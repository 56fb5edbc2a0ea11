"""A job for an executor's API, and the process that speaks to it: what the tests of several executors have in common."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

from dispatcher.clouds import CloudProfile
from dispatcher.cloudstates import observed
from dispatcher.effects.cloud_process import CloudProcess
from dispatcher.launch import parse_environment
from dispatcher.ports import Launched, NotLaunched
from dispatcher.recipe import Recipe
from dispatcher.slurm import State
from tests.fakes import plan_on
from tests.integration.clusters import environment

TRAIN = """\
import json, os, sys, time
rank = os.environ.get("RANK", "0")
print("rank", rank, "of", os.environ.get("WORLD_SIZE", "1"), "says", os.environ["SAYS"], sys.argv[1:], flush=True)
time.sleep(float(os.environ.get("PAUSE", "0")))
if rank == "0":
    json.dump({"loss": 1.5}, open("results.json", "w"))
sys.exit(int(os.environ.get("EXIT", "0")))
"""
SAYS = 'it\'s $(HOME) $$ `x` "y"'


def code_of(folder: Path, noise: int = 0) -> Path:
    """A commit's archive; `noise` bytes in it do not compress."""
    path = folder / "code.tar.gz"
    with gzip.open(path, "wb") as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, data in (("train.py", TRAIN.encode()), ("noise", random.Random(1).randbytes(noise))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


class Place:
    """The process for one profile, and a job for it."""

    def __init__(self, profile: CloudProfile, folder: Path, credentials: Mapping[str, str], recipe: Recipe | None = None) -> None:
        self.profile, self.folder = profile, folder
        self.plan = plan_on(profile, recipe or Recipe(script="train.py", entrypoint="python3", args=("a b", "$c")))
        self.cloud = CloudProcess(profile, {**environment(), **credentials})

    def launch(self, noise: int = 0, **variables: str) -> Launched | NotLaunched:
        """Starts it, with `noise` bytes of code that do not compress."""
        given = parse_environment(self.plan.environment({"SAYS": SAYS, **variables}))
        return self.cloud.launch(self.plan.for_compiler(), code_of(self.folder, noise), given)

    def launched(self, noise: int = 0, **variables: str) -> str:
        """The same, when it has to be started → its id."""
        answer = self.launch(noise, **variables)
        assert isinstance(answer, Launched), answer
        return answer.job_id

    def refused(self, noise: int = 0, **variables: str) -> str:
        """The same, when it must not be started → why not."""
        answer = self.launch(noise, **variables)
        assert isinstance(answer, NotLaunched), answer
        return answer.words

    def state(self, job_id: str) -> State:
        """How it stands."""
        [view] = self.cloud.look([job_id]).jobs
        return observed(self.profile.executor, view).state

    def end(self, job_id: str) -> State:
        """How it ended."""
        for _ in range(200):
            if (state := self.state(job_id)).ended:
                return state
            time.sleep(0.1)
        raise AssertionError("it does not end")
