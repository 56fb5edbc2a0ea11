"""What profiles ask for, rendered by NeMo-Run and run by a real Slurm: arrays, restarts, signals, and what a job is placed by."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dispatcher.advance import advance
from dispatcher.effects.compiler import CompilerProcess
from dispatcher.effects.ledger import LedgerCluster
from dispatcher.firstrecord import first_record
from dispatcher.jobplan import JobPlan
from dispatcher.observe import look, sight_of, sightings_of
from dispatcher.ports import AlreadySubmitted, Claimed, Submission, Submitted
from dispatcher.profile import SlurmProfile
from dispatcher.recipe import Recipe
from dispatcher.record import RunRecord
from dispatcher.slurm import State
from dispatcher.squash import import_files, squash_file
from tests.fakes import NOON, Fakes
from tests.integration.clusters import SYSTEM_PATH, claim_request, environment, local, submission
from tests.integration.test_submit_slurm import connect
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.unit.test_plan import planned
from tests.unit.test_plan import slurm as profile

# Other files' runs have had jobs on the same cluster, and jobs are looked up by their runs' keys.
KEY = "510b510b510b510b"


@pytest.fixture(scope="module")
def compiler() -> Iterator[CompilerProcess]:
    process = CompilerProcess()
    yield process
    process.close()


@dataclass
class Bench:
    """One run's way from the profile to its end."""

    cluster: LedgerCluster
    compiler: CompilerProcess
    slurm: SlurmRig
    folder: Path
    record: RunRecord | None = None
    key: str = KEY
    recipe: Recipe = field(default_factory=lambda: Recipe(script="train.py"))

    def plan(self, **fields: Any) -> JobPlan:
        """A run of this folder; the smallest one unless the fields say more."""
        job = planned(profile(**{"time": "5", "mem": "50M", **fields}), self.recipe)
        return replace(job, run_key=self.key, job_dir=str(self.folder))

    def submit(self, program: str, **fields: Any) -> str:
        """`program` is a shell's; the id that sbatch answered."""
        job = self.plan(**fields)
        self.record = first_record(job, NOON, "rig", None, None, at_terminal=True)
        described = {**job.for_compiler(), "entrypoint": "sh", "script": "-c", "args": [program]}
        groups = described["groups"]
        assert isinstance(groups, list)
        compiled = self.compiler.compile({**described, "groups": [{**group, "args": [program]} for group in groups]})
        answer = self.cluster.claim(claim_request(self.key))
        assert isinstance(answer, Claimed)
        made = submission(answer, self.key)
        images = import_files(job.profile.images, job.profile.squash) if isinstance(job.profile, SlurmProfile) else ()
        files = (*compiled.files, *images)
        wanted = Submission(self.key, self.record.to_json(), compiled.script, files, job.environment({}), made.manifest, made.upload)
        done = self.cluster.submit(wanted)
        assert isinstance(done, Submitted), done
        self.record = self.record.model_copy(update={"job_id": done.job_id})
        return done.job_id

    def look(self) -> RunRecord:
        """The record after one more look."""
        sweep = self.cluster.sweep()
        [run] = [run for run in sweep.runs if run.run_key == self.key]
        assert self.record is not None
        self.record = advance(self.record, sight_of(run, sightings_of(sweep), "slurm"), NOON, timedelta(minutes=10))
        return self.record

    def wait(self, *states: State, seconds: float = 60) -> RunRecord:
        """Until it is in one of these states."""
        deadline = time.monotonic() + seconds
        while (now := self.look()).state not in states:
            assert time.monotonic() < deadline, now
            assert not now.state.ended, now
            time.sleep(0.4)
        return now

    def log(self, part: int | None = None) -> str:
        """The log that a comment would show, or that of one part."""
        files = self.cluster.fetch(self.key, 0, 100_000, 0, part=part)
        assert files is not None
        return files.log.decode()


@pytest.fixture
def bench(cluster_sshd: Sshd, slurm: SlurmRig, compiler: CompilerProcess, tmp_path: Path) -> Iterator[Bench]:
    cluster = connect(cluster_sshd, tmp_path / "jobs")
    made = Bench(cluster, compiler, slurm, tmp_path / "jobs")
    yield made
    if made.record is not None and not made.record.state.ended:
        cluster.cancel(made.key)
    cluster.close()


TASK = "echo task $SLURM_ARRAY_TASK_ID; sleep 1; [ $SLURM_ARRAY_TASK_ID != 2 ] || exit 3"


def test_an_array_of_which_one_task_fails(bench: Bench, slurm: SlurmRig, cluster_sshd: Sshd) -> None:
    job = bench.submit(TASK, array="0-3%2", setup_lines=['echo "set up $SLURM_ARRAY_TASK_ID"'])
    running = bench.wait(State.RUNNING)
    assert running.reason.startswith("of 4: ")
    ended = bench.wait(State.FAILED)
    assert (ended.exit_code, ended.parts) == (3, 4)
    assert ended.reason == "task 2 ended as failed with exit code 3; of 4: 3 succeeded, 1 failed"
    assert ended.task_seconds is None or ended.task_seconds >= 4, "None where the queue knew the end before accounting"
    logs = sorted(path.name for path in (bench.folder / "runs" / KEY / "logs").iterdir())
    assert [name for name in logs if name.startswith("log-")] == [f"log-dispatch-{KEY}_{job}_{task}_0.out" for task in range(4)]
    # The task that failed comes first, whichever log is the newest.
    assert bench.log() == "task 2\n"
    assert [bench.log(task) for task in range(5)] == ["task 0\n", "task 1\n", "task 2\n", "task 3\n", ""]
    assert (bench.folder / "runs" / KEY / "exit").read_text() == "3\n"
    # Everything that was written after sbatch is missing, as after a power cut: the job is found, and none other is submitted.
    for name in ("job", "answer", "listed"):
        (bench.folder / "runs" / KEY / name).unlink()
    bench.cluster.close()
    time.sleep(4)
    again = connect(cluster_sshd, bench.folder)
    found = again.claim(claim_request(KEY))
    assert isinstance(found, AlreadySubmitted)
    assert found.job_id == job
    again.close()
    assert set(slurm.run("squeue", "-h", "--states=all", f"--name=dispatch-{KEY}", "-o", "%F").split()) == {job}


def test_an_array_that_passes_and_one_that_is_cancelled(bench: Bench) -> None:
    bench.submit("true", array="1,5,9")
    passed = bench.wait(State.SUCCEEDED)
    assert (passed.exit_code, passed.reason) == (0, "")
    assert (bench.folder / "runs" / KEY / "exit").read_text() == "0\n"


def test_cancelling_ends_every_task(bench: Bench, slurm: SlurmRig) -> None:
    job = bench.submit("sleep 60", array="0-3%1")
    bench.wait(State.RUNNING)
    assert bench.cluster.cancel(KEY).status == 0
    ended = bench.wait(State.CANCELLED)
    assert "of 4: 4 cancelled" in ended.reason
    assert slurm.run("squeue", "-h", "-j", job, "-o", "%T", check=False).strip() in ("", "COMPLETING")


def test_a_job_that_is_started_again_goes_backwards(bench: Bench, slurm: SlurmRig) -> None:
    """It fails, is put back into the queue, and passes: the same job and the same run, whose log is the second start's."""
    job = bench.submit('echo start ${SLURM_RESTART_COUNT:-0}; [ "${SLURM_RESTART_COUNT:-0}" = 1 ]', retries=1)
    waiting = bench.wait(State.PENDING)
    deadline = time.monotonic() + 40
    while "Restarts=1" not in slurm.run("scontrol", "-o", "show", "job", job):
        assert not bench.look().state.ended
        assert time.monotonic() < deadline
        time.sleep(0.3)
    waiting = bench.wait(State.PENDING)
    assert (waiting.started_at, waiting.ended_at, waiting.exit_code) == (None, None, None)
    # Slurm itself waits two minutes, so that the first start's last message does not end the second one.
    time.sleep(5)
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")
    ended = bench.wait(State.SUCCEEDED)
    assert ended.job_id == job
    assert bench.log() == "start 1\n"


def test_a_signal_before_the_end(bench: Bench) -> None:
    bench.submit("trap 'echo asked to end; exit 7' USR1; sleep 100 & wait", time="1", signal="USR1@59")
    ended = bench.wait(State.FAILED)
    assert ended.exit_code == 7
    assert "asked to end\n" in bench.log()


def test_where_a_job_is_put(bench: Bench, slurm: SlurmRig) -> None:
    slurm.run("sacctmgr", "-i", "add", "qos", "high")
    slurm.run("sacctmgr", "-i", "modify", "user", "root", "set", "qos+=high")
    slurm.run("scontrol", "update", "NodeName=n[2-3]", "AvailableFeatures=fast", "ActiveFeatures=fast")
    job = bench.submit(
        "true",
        constraint="fast",
        exclude="n2",
        exclusive=True,
        qos="high",
        gres="gpu:1",
        segment=None,
        open_mode="truncate",
        additional_parameters={"mail_type": "NONE"},
    )
    ended = bench.wait(State.SUCCEEDED)
    assert ended.nodes == "n3"
    said = slurm.run("scontrol", "-o", "show", "job", job)
    for words in ("QOS=high", "ExcNodeList=n2", "Features=fast", "OverSubscribe=NO", "Requeue=1", f"Comment={KEY}"):
        assert words in said
    assert re.search(r"TresPerNode=gres:gpu:1", said)


def test_a_job_that_waits_for_another(bench: Bench, slurm: SlurmRig) -> None:
    first = slurm.run("sbatch", "--parsable", "--account=ml", "--output=/dev/null", "--wrap=sleep 3; exit 1").strip()
    bench.submit("true", dependencies=[first], dependency_type="afternotok")
    assert bench.wait(State.PENDING).reason == "Dependency"
    bench.wait(State.SUCCEEDED)


HET: dict[str, Any] = {
    "het_groups": [{"gpus_per_node": 2}, {"nodes": 2, "env_vars": {"ROLE": "loader's"}}],
    "wait_time_for_group_job": 0,
    "monitor_group_job_wait_time": 1,
}


@pytest.mark.parametrize("fails", [0, 1])
def test_a_heterogeneous_job(bench: Bench, slurm: SlurmRig, cluster_sshd: Sshd, fails: int) -> None:
    """One component fails after a while, the other would go on for a minute."""
    bench.key = "cd"[fails] * 16  # the rig remembers other tests' jobs by their names
    said = 'echo "group $DISPATCH_GROUP role $ROLE gpus ${CUDA_VISIBLE_DEVICES-none}"'
    job = bench.submit(f"{said}; [ $DISPATCH_GROUP = {fails} ] || exec sleep 60; sleep 2; exit 4", **HET)
    running = bench.wait(State.RUNNING)
    assert running.reason == "of 2: 2 running"
    ended = bench.wait(State.FAILED, seconds=45)
    assert (ended.job_id, ended.exit_code, ended.parts) == (job, 4, 2)
    assert ended.reason == "component 0 ended as failed with exit code 4; of 2: 2 failed"
    logs = {path.name: path.read_text() for path in (bench.folder / "runs" / bench.key / "logs").glob("log-*")}
    assert "group 0 role  gpus 0,1\n" in logs[f"log-dispatch-{bench.key}-0_{job}_0.out"]
    assert logs[f"log-dispatch-{bench.key}-1_{int(job) + 1}_0.out"].count("group 1 role loader's gpus none\n") == 2
    assert bench.log(0) == "group 0 role  gpus 0,1\n"
    assert bench.log(1).count("group 1 role loader's") == 2
    for name in ("job", "answer", "listed"):
        (bench.folder / "runs" / bench.key / name).unlink()
    bench.cluster.close()
    time.sleep(4)
    again = connect(cluster_sshd, bench.folder)
    found = again.claim(claim_request(bench.key))
    assert isinstance(found, AlreadySubmitted)
    assert found.job_id == job
    again.close()


def test_a_heterogeneous_job_that_passes(bench: Bench) -> None:
    bench.submit("true", **HET)
    passed = bench.wait(State.SUCCEEDED)
    assert (passed.parts, passed.exit_code) == (2, 0)


def test_cancelling_ends_every_component(bench: Bench) -> None:
    bench.submit("sleep 60", **HET)
    bench.wait(State.RUNNING)
    assert bench.cluster.cancel(KEY).status == 0
    assert "of 2: 2 cancelled" in bench.wait(State.CANCELLED).reason


# --------------------------------------------------------------------------- images

IMAGE = "nvcr.io/nvidia/nemo:25.04"
SAID = 'echo "in $PYXIS_STANDIN_IMAGE"'
RUN_LINK = "https://wandb.ai/nvidia/nano3/runs/ab12cd34"


@pytest.fixture
def enroot(tmp_path: Path) -> Path:
    """An `enroot` on which a job's PATH can stand; it takes a while, and keeps what it was asked for."""
    program = tmp_path / "bin" / "enroot"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$(uname -n) $*" >>"$0.calls"\nsleep 2\necho squashed >"$3"\n')
    program.chmod(0o755)
    return program


def seen(bench: Bench) -> RunRecord:
    """The record after a look as the sweep takes it."""
    sweep = bench.cluster.sweep()
    [run] = [run for run in sweep.runs if run.run_key == bench.key]
    found = look(Fakes().world, bench.cluster, run, sight_of(run, sightings_of(sweep), "slurm"), timedelta(minutes=10))
    assert found is not None
    return found.record


def test_an_image_is_imported_once_for_two_jobs_and_a_file_is_used_as_it_is(bench: Bench, enroot: Path, tmp_path: Path) -> None:
    """Both begin at once. One of them also names its run at Weights & Biases, at the beginning of a long log."""
    path, cache = f"PATH={enroot.parent}:$PATH", str(tmp_path / "images")
    other = replace(bench, key="e" * 16)
    named = f"echo 'wandb: 🚀 View run at {RUN_LINK}'; yes 0123456789 | head -c 300000"
    bench.submit(f"{SAID}; {named}", container_image=IMAGE, squash=cache, setup_lines=[path])
    other.submit(SAID, container_image=IMAGE, squash={"cache": cache}, setup_lines=[path])
    file = squash_file(IMAGE, cache)
    for one in (bench, other):
        one.wait(State.SUCCEEDED)
        assert one.log().startswith(f"in {file}\n")
    assert enroot.with_name("enroot.calls").read_text().count("docker://nvcr.io#nvidia/nemo:25.04") == 1
    assert [path.name for path in Path(cache).iterdir()] == [Path(file).name]
    waited = [(bench.folder / "runs" / one.key / "logs").glob("sbatch_*") for one in (bench, other)]
    words = sorted(line for [log] in map(list, waited) for line in log.read_text().splitlines() if line.startswith("dispatch: "))
    assert [line.split()[1] for line in words] == ["imported", "importing", "waiting"]

    assert seen(bench).wandb_url == RUN_LINK

    third = replace(bench, key="f" * 16)
    third.submit(SAID, container_image=file, squash=cache)
    third.wait(State.SUCCEEDED)
    assert third.log() == f"in {file}\n"


def test_an_image_that_cannot_be_imported_is_the_runs_failure(bench: Bench, enroot: Path, tmp_path: Path) -> None:
    enroot.write_text("#!/bin/sh\necho '[ERROR] URL https://nvcr.io/v2/ returned error code: 401 Unauthorized' >&2; exit 1\n")
    path, cache = f"PATH={enroot.parent}:$PATH", str(tmp_path / "images")
    bench.submit(SAID, container_image=IMAGE, squash=cache, setup_lines=[path])
    assert bench.wait(State.FAILED).exit_code == 1
    said = bench.log()
    assert "returned error code: 401 Unauthorized\n" in said
    assert "dispatch: the image docker://nvcr.io#nvidia/nemo:25.04 could not be imported: enroot ended with status 1 on " in said
    assert seen(bench).reason.startswith(
        "the image docker://nvcr.io#nvidia/nemo:25.04 could not be imported: enroot ended with status 1 on "
    )


def test_the_login_node_imports_and_the_components_have_their_images(bench: Bench, slurm: SlurmRig, enroot: Path, tmp_path: Path) -> None:
    """The nodes have no enroot: what they start from was brought by a process that outlives the connection."""
    cache = str(tmp_path / "images")
    bench.cluster.close()
    bench.cluster = local(bench.folder, "slurm", {**environment(enroot.parent), **slurm.env})
    groups = [{}, {"container_image": "loader:1"}]
    wanted = {**HET, "het_groups": groups, "setup_lines": [f"PATH={SYSTEM_PATH}"]}
    bench.submit(SAID, container_image=IMAGE, squash={"cache": cache, "on": "login"}, **wanted)
    bench.cluster.close()
    bench.cluster = local(bench.folder, "slurm", {**environment(), **slurm.env})
    bench.wait(State.SUCCEEDED)
    assert bench.log(0) == f"in {squash_file(IMAGE, cache)}\n"
    assert bench.log(1) == f"in {squash_file('loader:1', cache)}\n"
    words = (bench.folder / "runs" / KEY / "logs" / "image.log").read_text()
    assert words.endswith("dispatch: docker://loader:1 is there\n")
    assert enroot.with_name("enroot.calls").read_text().count("import --output") == 2
