"""What the script's file holds, what stays for the script to resolve, and what is kept beside the job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from dispatcher.authorise import Grant
from dispatcher.errors import ConfigError
from dispatcher.jobconfig import JobConfig, job_facts, kept
from dispatcher.profile import SlurmProfile
from dispatcher.trainconfig import RecipeConfig, compose
from tests.fakes import HEAD, REPOSITORY, overrides

PROFILE = SlurmProfile.model_validate(
    {
        "executor": "slurm",
        "account": "acc",
        "host": "login.example.com",
        "user": "ci",
        "job_dir": "/lustre/ci",
        "nodes": 2,
        "env_vars": {"NCCL_DEBUG": "INFO"},
        "setup_lines": "module load x",
        "wandb": {"project": "pre", "entity": "team"},
    }
)


def config(text: str, *words: str, form: str = "omegaconf") -> JobConfig:
    grant = Grant("alice", HEAD, REPOSITORY, 7, "run", "comment:1", "comment", "allow", "cluster", "pretrain", overrides(*words))
    spec = RecipeConfig(dir="conf", default="c.json" if form == "json" else "c.yaml", format=form)  # type: ignore[arg-type]
    found = compose(spec, "", grant.overrides, {"conf/c.yaml": text, "conf/c.json": text}.get)
    return JobConfig(found, job_facts(grant, PROFILE, "train.py", "/lustre/ci"))


def train(text: str, *words: str, run_dir: str = "/nemo_run") -> Mapping[str, Any]:
    found = yaml.safe_load(config(text, *words).text(run_dir))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${oc.env:PWD}", "/nemo_run/code"),
        ("${oc.env:PWD}/data/${oc.env:USER}", "/nemo_run/code/data/${oc.env:USER}"),
        ("${oc.env:PWD,.}/x", "/nemo_run/code/x"),
        ("${ oc.env:'PWD' }", "/nemo_run/code"),
        ("${oc.env:NEMO_RUN_DIR}/out", "/nemo_run/out"),
        ("${oc.env:NEMO_RUN_DIR,/tmp}/out", "/nemo_run/out"),
        # Others are the script's to resolve, where it runs.
        ("${oc.env:HOME}", "${oc.env:HOME}"),
        ("${oc.env:HOME,/x}", "${oc.env:HOME,/x}"),
        ("${oc.env:PWDX}", "${oc.env:PWDX}"),
        ("${art:data,path}/blend.json", "${art:data,path}/blend.json"),
        ("${train.iters}", "${train.iters}"),
        ("${.x}", "${.x}"),
        ("${oc.decode:${oc.env:N}}", "${oc.decode:${oc.env:N}}"),
        ("\\${oc.env:PWD}", "\\${oc.env:PWD}"),
        ("\\\\${oc.env:PWD}", "\\\\/nemo_run/code"),
        ("\\${run.wandb.project}", "\\${run.wandb.project}"),
        # What is about the job is filled in, with its type.
        ("${run.wandb.project}", "pre"),
        ("${run.wandb.group}", "mine"),
        ("p/${run.wandb.project}/${run.wandb.entity}", "p/pre/team"),
        ("${run.env.nodes}", 2),
        ("n${run.env.nodes}", "n2"),
        ("${run.env.remote_job_dir}/x", "/lustre/ci/x"),
        ("${run.recipe.name}", "pretrain"),
        ("${run.data}", "blend:v1"),
        ("${run.where}", "/nemo_run/code/d"),
        ("${run.list}", [1, "blend:v1"]),
        ("${art:${run.name},path}", "${art:abc,path}"),
        ("$(touch pwned) `id` $HOME", "$(touch pwned) `id` $HOME"),
    ],
)
def test_what_is_filled_in_and_what_is_kept(value: str, expected: object) -> None:
    rest = "run: {data: 'blend:v1', where: '${oc.env:PWD}/d', name: abc, list: [1, '${run.data}'], wandb: {group: mine, project: no}}\n"
    text = yaml.safe_dump({"a": {"b": [value]}, "train": {"iters": 3}}) + rest
    assert train(text)["a"] == {"b": [expected]}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("${run.wandb.name}", "nothing sets that"),
        ("${run.env.host}", "nothing sets that"),
        ("${run.env.env_vars.NCCL_DEBUG}", "nothing sets that"),
        ("x${run.list}", "is a table or a list"),
        ("${run.loop}", "in a circle"),
        ("${run[data]}", "only be referred to as"),
        ("${oc.select:run.data,x}", "only be referred to as"),
        ("${art:${run.odd},path}", "cannot stand inside"),
        ("${auto_mount:git+https://e.com/r.git@x}", "belongs into the list `run.env.mounts`"),
        ("???", "is missing (`???`)"),
    ],
)
def test_what_cannot_be_filled_in_is_said_before_anything_is_submitted(value: str, words: str) -> None:
    rest = "run: {data: d, list: [1], loop: '${run.pool}', pool: '${run.loop}', odd: 'a,b}'}\n"
    with pytest.raises(ConfigError) as caught:
        config(yaml.safe_dump({"a": {"b": value}}) + rest).text("/nemo_run")
    assert (caught.value.code, words in caught.value.cause, "`a.b`" in caught.value.cause) == ("config.invalid", True, True)


def test_references_that_would_grow_without_bounds() -> None:
    steps = "".join(f"  s{n}: '" + f"${{run.s{n + 1}}}" * 100 + "'\n" for n in range(8))
    with pytest.raises(ConfigError, match="1,048,576"):
        config("a: ${run.s0}\nrun:\n" + steps + "  s8: x\n").text("/nemo_run")


def test_what_of_run_the_script_gets() -> None:
    text = "a: 1\nrun: {data: 'blend:v1', model: m, env: {nodes: 9, container: x}, wandb: {project: p}, mode: x, profile: y}\n"
    assert train(text) == {"a": 1, "run": {"data": "blend:v1", "model": "m"}}
    assert train("a: 1\nrun: {env: {nodes: 9}}\n") == {"a": 1}


def test_the_code_of_a_run_without_a_container() -> None:
    assert train("a: ${oc.env:PWD}\n", run_dir="/lustre/ci/runs/0123")["a"] == "/lustre/ci/runs/0123/code"


@pytest.mark.parametrize("value", ["1e-4", "on", "null", "~", "0x10", "1:30", "2024-01-01", "", " x ", "é😀", "a\nb", "#x", "'", "- a"])
def test_a_text_stays_that_text(value: str) -> None:
    from omegaconf import OmegaConf

    text = config(json.dumps({"a": value, "b": {"c": [value]}}, ensure_ascii=False)).text("/nemo_run")
    assert OmegaConf.to_container(OmegaConf.create(text)) == {"a": value, "b": {"c": [value]}}


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_other_formats_have_no_interpolations(form: str) -> None:
    value = "${oc.env:PWD} ${run.x} ${art:data}"
    found = config(json.dumps({"a": value, "n": 1.5, "run": {"env": {"nodes": 3}}}), "b.c=[1,x]", form=form)
    text = found.text("/nemo_run")
    assert (json.loads(text) if form == "json" else yaml.safe_load(text)) == {"a": value, "n": 1.5, "b": {"c": [1, "x"]}}
    assert found.path("/nemo_run") == f"/nemo_run/configs/train.{form}"


def test_both_files_lie_beside_the_job() -> None:
    found = config("a: ${oc.env:PWD}\nrun: {data: d, env: {nodes: 9, container: c, x: y}}\n", "a=2", "run.nodes=2", "config=c")
    files = {file.path: yaml.safe_load(file.content) for file in found.files("/nemo_run")}
    assert files["configs/train.yaml"] == {"a": 2, "run": {"data": "d"}}
    job = files["configs/job.yaml"]
    assert (job["a"], job["run"]["data"], job["run"]["env"]["x"]) == (2, "d", "y")
    # What is so stands over what the file says.
    assert (job["run"]["env"]["nodes"], job["run"]["env"]["account"], job["run"]["profile"]) == (2, "acc", "cluster")
    assert job["run"]["cli"] == {"dotlist": ["a=2"], "config": "c"}
    assert "container" not in job["run"]["env"]
    assert job["run"]["source"] == {"repository": REPOSITORY, "sha": HEAD, "asked_by": "alice", "files": ["conf/c.yaml"]}
    assert "NCCL_DEBUG" not in str(job)
    assert "module load" not in str(job)


def test_where_the_run_lies_is_no_content() -> None:
    found = config("a: ${oc.env:PWD}\n")
    assert found.text("/lustre/a") != found.text("/lustre/b")
    assert found.content == config("a: ${oc.env:PWD}\n").content != config("a: ${oc.env:HOME}\n").content


def test_what_is_left_to_the_script_is_named() -> None:
    assert kept("a: ${art:data,path}\nb: ${oc.env:HOME}/${a.b}\nc: \\${no:x}\nd: ${oc.env:X}\n") == ("art", "oc.env")


def test_in_json_a_dollar_and_a_brace_mean_nothing() -> None:
    value = "${unclosed ${} ${oc.env:"
    assert json.loads(config(json.dumps({"a": value, "b": [value]}), "c=1", form="json").text("/x")) == {"a": value, "b": [value], "c": 1}
