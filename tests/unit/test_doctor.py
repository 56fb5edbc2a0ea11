"""What a login node says about itself → findings: a table for each of them."""

from __future__ import annotations

import pytest

from dispatcher.doctor import Finding, findings, problems, rendered
from dispatcher.ports import CommandOutput, Probe
from dispatcher.profile import ResolvedProfile, resolve_profile

PROFILE = """\
executor: slurm
account: ml
partition: batch
host: login.example.com
user: ci
remote_job_dir: /jobs
container_image: a.sqsh
"""


def resolved(text: str = PROFILE) -> ResolvedProfile:
    found = resolve_profile("cluster", {"profiles/cluster.yaml": text}, (), {})
    assert isinstance(found, ResolvedProfile)
    return found


def df(free: int) -> str:
    return f"Filesystem     1024-blocks      Used Available Capacity Mounted on\n/dev/x     100000000  1 {free}  1% /jobs\n"


HEALTHY = {
    "job_dir": CommandOutput(0, "/jobs\n"),
    "space": CommandOutput(0, df(1_200_000_000)),
    "quota": CommandOutput(0, "     /jobs  100  200  300\n"),
    "sbatch": CommandOutput(0, "slurm-wlm 22.05.8\n"),
    "squeue": CommandOutput(0, ""),
    "sacct": CommandOutput(0, "1\n"),
    "account": CommandOutput(0, "ml||normal\nother||normal\n"),
    "partitions": CommandOutput(0, "batch*|up|infinite|4|gpu:8|idle\ninteractive|up|1:00:00|1||idle\n"),
    "pyxis": CommandOutput(0, "--container-image=...\n"),
}


def found(name: str, text: str = PROFILE, **said: CommandOutput) -> Finding:
    probes = [Probe(key, output) for key, output in {**HEALTHY, **said}.items()]
    [one] = [finding for finding in findings(resolved(text), probes) if finding.name == name]
    return one


def test_a_healthy_profile() -> None:
    report = findings(resolved(), [Probe(name, output) for name, output in HEALTHY.items()])
    assert {finding.mark for finding in report} == {"ok"}
    assert rendered(report)[-1] == "0 problems. Nothing was submitted."
    text = "\n".join(rendered(report))
    assert "✓ job_dir        writable, 1.2 TB free" in text
    assert "✓ slurm          22.05.8: sbatch and squeue answer" in text
    assert "✓ partition      `batch`" in text


NO = CommandOutput(1, "", "mkdir: cannot create directory: Permission denied")
ABSENT = CommandOutput(127, "", "sh: 1: sbatch: not found")


@pytest.mark.parametrize(
    ("name", "probe", "said", "mark", "words", "place"),
    [
        (
            "job_dir",
            "job_dir",
            NO,
            "problem",
            "cannot be written to: mkdir: cannot create directory: Permission denied",
            "profiles/cluster.yaml:6",
        ),
        ("job_dir", "space", CommandOutput(0, df(1_000_000)), "problem", "only 1.0 GB are free", "profiles/cluster.yaml:6"),
        ("job_dir", "space", CommandOutput(1, ""), "ok", "writable, /jobs", ""),
        ("quota", "quota", ABSENT, "none", "none is reported", ""),
        ("quota", "quota", CommandOutput(0, "/jobs 300* 200 300"), "problem", "is used up", ""),
        ("slurm", "sbatch", ABSENT, "problem", "`sbatch` does not answer: sh: 1: sbatch: not found", ""),
        ("slurm", "squeue", CommandOutput(1, "", "Unable to contact slurm controller"), "problem", "Unable to contact", ""),
        ("accounting", "sacct", CommandOutput(1, "", "Slurm accounting storage is disabled"), "none", "`sacct` does not answer", ""),
        ("accounting", "sacct", CommandOutput(0, "", "Slurm accounting storage is disabled"), "none", "`sacct` does not answer", ""),
        ("account", "account", CommandOutput(0, "mlx|\n"), "problem", "`ml` is not yours; did you mean `mlx`?", "profiles/cluster.yaml:2"),
        ("account", "account", CommandOutput(0, "other|\n"), "problem", "`ml` is not yours; there are: other", "profiles/cluster.yaml:2"),
        ("account", "account", ABSENT, "none", "cannot be checked", ""),
        ("account", "account", CommandOutput(0, ""), "none", "cannot be checked", ""),
        (
            "partition",
            "partitions",
            CommandOutput(0, "batchh*|up\n"),
            "problem",
            "`batch` does not exist; did you mean `batchh`?",
            "profiles/cluster.yaml:3",
        ),
        ("partition", "partitions", ABSENT, "none", "`sinfo` does not answer", ""),
        ("containers", "pyxis", CommandOutput(1, ""), "problem", "Pyxis is not installed", ""),
    ],
)
def test_each_finding(name: str, probe: str, said: CommandOutput, mark: str, words: str, place: str) -> None:
    finding = found(name, **{probe: said})
    assert (finding.mark, finding.place) == (mark, place)
    assert words in finding.words


@pytest.mark.parametrize(
    ("change", "mark", "words"),
    [
        ("batch", "ok", "`batch`"),
        ("batch,interactive", "ok", "`batch,interactive`"),
        ("batch,none", "problem", "`none` does not exist"),
    ],
)
def test_several_partitions(change: str, mark: str, words: str) -> None:
    finding = found("partition", PROFILE.replace("partition: batch", f"partition: {change}"))
    assert (finding.mark, words in finding.words) == (mark, True)


def test_other_partition_fields_are_checked_too() -> None:
    finding = found("partition", PROFILE + "run_partition: interactiv\n")
    assert (finding.mark, finding.place) == ("problem", "profiles/cluster.yaml:8")
    assert "did you mean `interactive`?" in finding.words


def test_without_a_partition_it_is_the_clusters() -> None:
    assert "the cluster's default" in found("partition", PROFILE.replace("partition: batch\n", "")).words


def test_without_an_image_pyxis_is_not_missed() -> None:
    finding = found("containers", PROFILE.replace("container_image: a.sqsh\n", ""), pyxis=CommandOutput(1, ""))
    assert (finding.mark, finding.words) == ("none", "profile uses none")


@pytest.mark.parametrize(
    ("squash", "enroot", "mark", "words"),
    [
        ("/images", 127, "none", "jobs import into `/images`"),
        ("{ cache: /images, on: login }", 0, "ok", "the login node imports into `/images`"),
        ("{ cache: /images, on: login }", 127, "problem", "the login node has no `enroot`"),
    ],
)
def test_who_imports_images(squash: str, enroot: int, mark: str, words: str) -> None:
    text = PROFILE.replace("a.sqsh", "nvcr.io/nvidia/nemo:25.04") + f"squash: {squash}\n"
    finding = found("squash", text, enroot=CommandOutput(enroot, ""))
    assert finding.mark == mark
    assert words in finding.words
    assert finding.place == ("profiles/cluster.yaml:8" if mark == "problem" else "")


def test_files_need_no_import() -> None:
    names = [finding.name for finding in findings(resolved(PROFILE + "squash: /images\n"), [])]
    assert "squash" not in names


def test_a_local_profile_has_no_scheduler() -> None:
    names = [finding.name for finding in findings(resolved("executor: local\n"), [Probe("job_dir", HEALTHY["job_dir"])])]
    assert names == ["job_dir", "quota", "scheduler"]


def test_a_login_node_that_says_nothing() -> None:
    report = findings(resolved(), [])
    assert problems(report) == 3
    assert rendered(report)[-1] == "3 problems. Nothing was submitted."


def test_what_the_login_node_says_is_printable_and_short() -> None:
    finding = found("slurm", sbatch=CommandOutput(1, "", "\x1b[31mred\x1b[0m\x00\u202e" + "x" * 1000))
    assert finding.words.isprintable()
    assert len(finding.words) < 300


def test_one_problem_is_one() -> None:
    assert rendered([Finding("problem", "a", "b", "f:1")])[-2:] == ["                   → f:1", "1 problem. Nothing was submitted."]


def test_what_has_no_effect_is_named_with_its_line() -> None:
    text = '[c]\nexecutor = "local"\nidentity = "~/.ssh/id"\n[cli]\ntheme = "dark"\n'
    found = resolve_profile("c", {"env.toml": text}, (), {})
    assert isinstance(found, ResolvedProfile)
    told = {finding.name: (finding.mark, finding.place) for finding in findings(found, ())}
    assert (told["identity"], told["[cli]"]) == (("none", "env.toml:3"), ("none", "env.toml:4"))
