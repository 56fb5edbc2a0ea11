"""From a commit's configuration to the plan: what the script is started with, whose word counts, and what a gate makes of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace

import pytest
import yaml
from pydantic import ValidationError

from dispatcher.answer import Answer
from dispatcher.authorise import Grant
from dispatcher.configuration import read_policy
from dispatcher.errors import ConfigError
from dispatcher.firstrecord import first_record
from dispatcher.gate import Pass, Pending, Requirement, judge
from dispatcher.grammar import Malformed, Override, Run, Sweep, parse_override
from dispatcher.ports import Compiled
from dispatcher.preparing import Prepared, compile_job, prepare
from dispatcher.preview import preview
from dispatcher.recipe import Recipe
from dispatcher.record import RunRecord
from dispatcher.slurm import State
from dispatcher.verbs import parse_line, parse_words
from tests.fakes import HEAD, NOON, REPOSITORY, Fakes, overrides
from tests.unit.test_runsection import MOUNT, SHA

GRANT = Grant("alice", HEAD, REPOSITORY, 7, "run", "comment:99", "comment", "allow.roles", "cluster", "default")
POLICY = """\
default_profile: cluster
images: ["*", "nvcr.io/*"]
repositories: ["https://github.com/NVIDIA-NeMo/*"]
limits: {{ nodes: 4 }}
approval: {{ nodes: 2 }}
overrides: {{ allow: ["*", run.nodes] }}
recipes:
  default: {{ script: train.py, {recipe} }}
"""
CONFIG = (
    "train: {iters: 100, lr: 1e-4}\ndata: ${art:data,path}\nhere: ${oc.env:PWD}\nrun: {data: blend, env: {nodes: 2, time: '9:00:00'}}\n"
)
OPEN = "config: conf/default.yaml, runspec: [resources, image, mounts, env.MY_*]"


def world(recipe: str = "config: conf/default.yaml", default: Mapping[str, str] | None = None, config: str = CONFIG, **texts: str) -> Fakes:
    made = Fakes(POLICY.format(recipe=recipe))
    made.archive.texts |= {"conf/default.yaml": config, "train.py": "print(1)\n"} | texts
    made.files |= {"conf/default.yaml": config, "train.py": "print(1)\n"} if default is None else default
    return made


def prepared(fakes: Fakes, *words: str, grant: Grant = GRANT) -> Prepared:
    found = prepare(replace(grant, overrides=overrides(*words)), None, read_policy(fakes.world), fakes.world)
    assert isinstance(found, Prepared), found
    return found


def refused(fakes: Fakes, *words: str) -> Answer:
    found = prepare(replace(GRANT, overrides=overrides(*words)), None, read_policy(fakes.world), fakes.world)
    assert isinstance(found, Answer)
    return found


def files(fakes: Fakes, found: Prepared) -> dict[str, object]:
    return {file.path: yaml.safe_load(file.content) for file in compile_job(found.plan, fakes.world).files}


def record(found: Prepared) -> RunRecord:
    return first_record(found.plan, NOON, "here", 99, 7, at_terminal=False).model_copy(update={"state": State.SUCCEEDED})


# --------------------------------------------------------------------------- what the script gets


def test_the_script_gets_the_merged_file_and_no_override_as_an_argument() -> None:
    fakes = world("config: conf/default.yaml, args: [--verbose]")
    found = prepared(fakes, "train.iters=5", "run.nodes=2")
    job = found.plan
    path = f"{job.run_dir}/configs/train.yaml"
    assert job.arguments == ("--config", path, "--verbose")
    assert files(fakes, found)["configs/train.yaml"] == {
        "train": {"iters": 5, "lr": 1e-4},
        "data": "${art:data,path}",
        "here": f"{job.run_dir}/code",
        "run": {"data": "blend"},
    }
    assert files(fakes, found)["configs/job.yaml"]["run"]["env"]["nodes"] == 2  # type: ignore[index]
    assert f"export DISPATCH_CONFIG={path}\n" in job.environment({})
    assert job.resources.nodes == 2


def test_in_a_container() -> None:
    fakes = world("config: conf/default.yaml, container_image: a.sqsh")
    found = prepared(fakes)
    assert found.plan.arguments == ("--config", "/nemo_run/configs/train.yaml")
    assert files(fakes, found)["configs/train.yaml"]["here"] == "/nemo_run/code"  # type: ignore[index]


def test_without_a_configuration_all_is_as_it_was() -> None:
    fakes = world("args: [-v]")
    job = prepared(fakes, "config=tiny", "a=1").plan
    assert job.arguments == ("-v", "config=tiny", "a=1")
    assert "DISPATCH_CONFIG" not in job.environment({})
    assert not fakes.trace.of("archive.read_text")


def test_another_configuration_by_name() -> None:
    fakes = world(**{"conf/tiny.yaml": "defaults: default\ntrain: {iters: 1}\n"})
    found = prepared(fakes, "config=tiny", "train.lr=2e-4")
    assert files(fakes, found)["configs/train.yaml"]["train"] == {"iters": 1, "lr": 2e-4}  # type: ignore[index]
    # Only what is named was read.
    assert set(fakes.trace.of("archive.read_text")) == {"archive.read_text conf/tiny.yaml", "archive.read_text conf/default.yaml"}


def test_the_same_text_has_the_same_content_wherever_it_lies() -> None:
    first, again = prepared(world()).plan, prepared(world(), grant=replace(GRANT, trigger="comment:100")).plan
    assert (first.run_key != again.run_key, first.content_key == again.content_key) == (True, True)
    assert prepared(world(config=CONFIG + "x: 1\n")).plan.content_key != first.content_key


@pytest.mark.parametrize(
    ("word", "allowed"),
    [("config=tiny", False), ("train.iters=1", True)],
)
def test_the_choice_is_an_override_like_others(word: str, allowed: bool) -> None:
    fakes = world(**{"conf/tiny.yaml": CONFIG})
    fakes.files[".github/dispatch.yml"] = fakes.files[".github/dispatch.yml"].replace('["*", run.nodes]', '["train.*"]')
    if allowed:
        assert prepared(fakes, word)
    else:
        assert refused(fakes, word).reason == "override-not-allowed"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-c tiny", Run(overrides=(Override("config", "tiny"),))),
        ("config=tiny", Run(overrides=(Override("config", "tiny"),))),
        ("run profile=a -c conf/x.yaml lr=1", Run(profile="a", overrides=(Override("config", "conf/x.yaml"), Override("lr", "1")))),
        ("plan -c tiny", Run(overrides=(Override("config", "tiny"),), dry_run=True)),
    ],
)
def test_a_configuration_is_named_as_nemotron_does(line: str, expected: Run) -> None:
    assert parse_line(line) == expected
    assert parse_words(shlex.split(line)) == expected


def test_several_configurations_are_several_runs() -> None:
    for line in ("config=tiny,large", "-c tiny,large"):
        found = parse_line(line)
        assert isinstance(found, Sweep)
        assert [run.overrides for run in found.runs] == [overrides("config=tiny"), overrides("config=large")]


@pytest.mark.parametrize("line", ["-c", "-c a=b", "tiny -c", "-c -c"])
def test_an_option_without_its_name(line: str) -> None:
    found = parse_line(line)
    assert not isinstance(found, Run) or found.overrides == overrides("config=-c")


def test_the_preview_shows_it() -> None:
    fakes = world(OPEN, **{"conf/tiny.yaml": "defaults: default\n"})
    text = preview(prepared(fakes, "config=tiny", "train.itres=5").plan, Compiled("#!/bin/bash\n"))
    row = (
        "| Configuration | `conf/tiny.yaml` over `conf/default.yaml` · 1 override merged into it, none is an argument · "
        "new keys: `train.itres` · for the script to resolve: `${art:…}` |"
    )
    assert row in text
    assert "| From the script | `run.env.nodes = 2`; not taken: run.env.time" in text.replace("`run.env.time`", "run.env.time")
    assert "itres: 5" in text


def test_a_long_configuration_leaves_room_for_the_rest() -> None:
    text = preview(prepared(world(config="a: " + "x" * 100_000 + "\n")).plan, Compiled("#!/bin/bash\n"))
    assert len(text) < 25_000
    assert "left out" in text


# --------------------------------------------------------------------------- whose word counts


def test_the_job_part_counts_only_where_it_is_opened() -> None:
    closed, opened = world(), world(OPEN)
    assert prepared(closed).plan.resources.nodes == 1
    assert "Not taken from the configuration: run.env.nodes, run.env.time." in closed.said
    found = prepared(opened)
    assert (found.plan.resources.nodes, found.plan.from_script) == (2, (("run.env.nodes", "2"),))
    assert found.plan.profile.time == prepared(closed).plan.profile.time
    assert prepared(opened, "run.nodes=3").plan.resources.nodes == 3


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ("nodes: 5", "too-many-nodes"),
        ("container: docker.io/evil", "image-not-allowed"),
        (f"container: nvcr.io/x, mounts: ['{MOUNT.replace('NVIDIA-NeMo', 'evil')}']", "repository-not-allowed"),
    ],
)
def test_the_policy_bounds_it(env: str, reason: str) -> None:
    assert refused(world(OPEN, config=f"run: {{env: {{{env}}}}}\n")).reason == reason


def test_a_policy_that_names_no_repository_allows_none() -> None:
    fakes = world(OPEN, config=f"run: {{env: {{container: nvcr.io/x, mounts: ['{MOUNT}']}}}}\n")
    for named in ("[]", '["*"]'):
        policy = POLICY.format(recipe=OPEN).replace('["https://github.com/NVIDIA-NeMo/*"]', named)
        fakes.files[".github/dispatch.yml"] = policy
        assert refused(fakes).reason == "repository-not-allowed"


def test_a_second_person_must_agree_to_what_the_configuration_asks_for() -> None:
    assert prepared(world(OPEN)).approval is None
    assert prepared(world(OPEN, config="run: {env: {nodes: 3}}\n")).approval == "approval.nodes"


@pytest.mark.parametrize(
    ("default", "own"),
    [
        ({"conf/default.yaml": CONFIG}, False),
        # What the script does is the change that is tested; what it gets is not.
        ({"conf/default.yaml": CONFIG.replace("iters: 100", "iters: 1")}, False),
        ({"conf/default.yaml": CONFIG.replace("nodes: 2", "nodes: 3")}, True),
        ({"conf/default.yaml": "a: 1\n"}, True),
        ({"conf/default.yaml": "a: [\n"}, True),
        ({}, True),
    ],
)
def test_a_gate_counts_only_what_the_default_branch_asks_for(default: Mapping[str, str], own: bool) -> None:
    found = record(prepared(world(OPEN, default=default)))
    assert found.own_runspec is own
    assert isinstance(judge([Requirement("cluster", "default", "train.py")], [found], HEAD), Pending if own else Pass)


def test_a_new_configuration_that_asks_for_nothing_counts() -> None:
    assert not record(prepared(world(OPEN, default={}, config="a: 1\n"))).own_runspec


def test_a_run_with_another_configuration_counts_for_no_gate() -> None:
    found = record(prepared(world(**{"conf/tiny.yaml": CONFIG}), "config=tiny"))
    assert isinstance(judge([Requirement("cluster", "default", "train.py")], [found], HEAD), Pending)


def test_the_configuration_wins_over_the_scripts_block() -> None:
    block = "# /// script\n# [tool.runspec.resources]\n# nodes = 1\n# gpus_per_node = 8\n# ///\n"
    found = prepared(world(OPEN, default={"conf/default.yaml": CONFIG, "train.py": block}, **{"train.py": block})).plan
    assert (found.resources.nodes, found.resources.gpus_per_node) == (2, 8)


# --------------------------------------------------------------------------- what a script says about its configuration

BLOCK = "# /// script\n# [tool.runspec]\n{lines}# ///\nprint(1)\n"


def script(*lines: str) -> str:
    return BLOCK.format(lines="".join(f"# {line}\n" for line in lines))


def test_a_script_says_where_its_configurations_lie() -> None:
    text = script("[tool.runspec.config]", 'dir = "./config"', 'default = "tiny"')
    files = {"src/train.py": text, "src/config/tiny.yaml": "a: 1\n"}
    fakes = world("runspec: [config]", default=files, **files)
    fakes.files[".github/dispatch.yml"] = fakes.files[".github/dispatch.yml"].replace("train.py", "src/train.py")
    fakes.archive.commits[HEAD] = (replace(fakes.archive.commits[HEAD][0], path="src/train.py"),)
    job = prepared(fakes).plan
    assert job.config is not None
    assert job.config.composed.files == ("src/config/tiny.yaml",)
    assert job.from_script == (("config.dir", "./config"), ("config.default", "tiny"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('dir = "../.."', "leads out of what is packed"),
        ('dir = "/etc"', "leads out of what is packed"),
        ('default = "../x"', "is not a configuration's name"),
        ('default = "nowhere"', "There is no configuration `nowhere`"),
    ],
)
def test_a_script_cannot_lead_elsewhere(line: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared(world("runspec: [config]", **{"train.py": script("[tool.runspec.config]", line)}))
    assert words in caught.value.cause


def test_a_recipe_that_says_it_itself_is_not_open() -> None:
    text = script("[tool.runspec.config]", 'dir = "evil"')
    job = prepared(world("config: conf/default.yaml, runspec: [config]", **{"train.py": text})).plan
    assert job.config is not None
    assert (job.config.composed.files, job.from_script) == (("conf/default.yaml",), ())


# --------------------------------------------------------------------------- command lines


@pytest.mark.parametrize(
    ("cmd", "recipe", "expected"),
    [
        ("uv run --no-project {script} --config {config}", "", ["uv", "run", "--no-project", "train.py", "--config", "CONFIG", "-v"]),
        ("uv run {script}", "", ["uv", "run", "train.py", "--config", "CONFIG", "-v"]),
        ("python -u {script} --config={config}", "", ["python", "-u", "train.py", "--config=CONFIG", "-v"]),
        ("bash -c 'echo $(id); exec {script}'", "", ["bash", "-c", "echo $(id); exec train.py", "--config", "CONFIG", "-v"]),
    ],
)
def test_a_command_line_is_words(cmd: str, recipe: str, expected: list[str]) -> None:
    for fakes in (
        world(
            f"config: conf/default.yaml, args: [-v], cmd: {cmd!r}"
            if "'" not in cmd
            else f'config: conf/default.yaml, args: [-v], cmd: "{cmd}"'
        ),
        world("config: conf/default.yaml, args: [-v], runspec: [cmd]", **{"train.py": script("[tool.runspec.run]", f'cmd = "{cmd}"')}),
    ):
        job = prepared(fakes, "a=1").plan
        given = job.for_compiler()
        words = [given["entrypoint"], given["script"], *given["args"]]  # type: ignore[misc]
        assert words == [word.replace("CONFIG", f"{job.run_dir}/configs/train.yaml") for word in expected]


def test_without_a_configuration_a_command_line_takes_overrides_as_arguments() -> None:
    given = prepared(world("cmd: 'uv run {script}'"), "a=b c").plan.for_compiler()
    assert (given["entrypoint"], given["script"], given["args"]) == ("uv", "run", ["train.py", "a=b c"])


def test_a_command_line_that_is_not_opened_is_left() -> None:
    fakes = world("launcher: none", **{"train.py": script("[tool.runspec.run]", 'cmd = "uv run {script}"')})
    assert prepared(fakes).plan.for_compiler()["entrypoint"] == "python"
    fakes = world("entrypoint: python3, runspec: [cmd]", **{"train.py": script("[tool.runspec.run]", 'cmd = "uv run {script}"')})
    assert prepared(fakes).plan.for_compiler()["entrypoint"] == "python3"


@pytest.mark.parametrize("cmd", ["python", "uv run x.py", "uv run '{script}", "uv run {script} {oops}", "$(id) {script}", "{script} x", ""])
def test_what_is_no_command_line(cmd: str) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate({"script": "train.py", "cmd": cmd})
    with pytest.raises(ConfigError):
        prepared(world("runspec: [cmd]", **{"train.py": script("[tool.runspec.run]", f'cmd = "{cmd}"')}))


@pytest.mark.parametrize(
    "fields", [{"module": "a.b", "cmd": "uv run {script}"}, {"script": "a.py", "entrypoint": "x", "cmd": "uv run {script}"}]
)
def test_a_command_line_is_instead_of_an_entry_point(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(fields)


def test_a_command_line_that_needs_a_configuration_that_is_not_there() -> None:
    with pytest.raises(ValidationError, match="has no `config`"):
        Recipe.model_validate({"script": "a.py", "cmd": "uv run {script} {config}"})
    with pytest.raises(ConfigError, match="there is no `config`"):
        prepared(world("runspec: [cmd]", **{"train.py": script("[tool.runspec.run]", 'cmd = "uv run {script} {config}"')}))


# --------------------------------------------------------------------------- repositories


def test_a_repository_is_cloned_by_the_job_and_mounted() -> None:
    fakes = world(OPEN, config=f"run: {{env: {{container: nvcr.io/x, mounts: ['{MOUNT}']}}}}\n")
    job = prepared(fakes).plan
    given = job.for_compiler()
    executor = given["executor"]
    assert isinstance(executor, dict)
    assert executor["container_mounts"] == [f"{job.run_dir}/repositories/{SHA}:/opt/Megatron-Bridge"]
    lines = "\n".join(given["setup_lines"])  # type: ignore[arg-type]
    assert f"fetch -q --depth 1 --no-tags -- https://github.com/NVIDIA-NeMo/Megatron-Bridge.git {SHA}" in lines
    other = prepared(world(OPEN, config=f"run: {{env: {{container: nvcr.io/x, mounts: ['{MOUNT.replace('0123', '4567', 1)}']}}}}\n")).plan
    assert other.content_key != job.content_key


def test_a_repository_needs_a_container() -> None:
    with pytest.raises(ConfigError, match="a Slurm job in a container, and this is none"):
        prepared(world(OPEN, config=f"run: {{env: {{mounts: ['{MOUNT}']}}}}\n"))


# --------------------------------------------------------------------------- executors behind an API


def test_what_is_too_long_for_a_script_is_refused() -> None:
    job = prepared(world(config="a: " + "x" * 70_000 + "\n")).plan
    assert job.config is not None
    with pytest.raises(ConfigError, match="65,536 are the limit"):
        job.config.lines("/nemo_run")


# --------------------------------------------------------------------------- overrides of the job's part

ALLOWED = '["*", run.nodes, run.data, run.odd]'


def with_run(*words: str, recipe: str = "config: conf/default.yaml", **texts: str) -> Prepared:
    fakes = world(recipe, **texts)
    fakes.files[".github/dispatch.yml"] = fakes.files[".github/dispatch.yml"].replace('["*", run.nodes]', ALLOWED)
    return prepared(fakes, *words)


def test_an_artifact_is_overridden_in_the_configuration() -> None:
    job = with_run("run.data=blend:v2", "run.nodes=2").plan
    assert job.config is not None
    assert yaml.safe_load(job.config.content)["run"] == {"data": "blend:v2"}
    assert (job.resources.nodes, job.arguments) == (2, job.config.option(job.run_dir))


def test_it_takes_the_policys_leave_like_every_word_about_the_job() -> None:
    assert refused(world(), "run.data=x").reason == "override-not-allowed"


def test_one_that_nobody_has_is_misspelt() -> None:
    with pytest.raises(ConfigError, match=r"`run\.odd` is neither a field of the profile nor in the configuration"):
        with_run("run.odd=1")


@pytest.mark.parametrize("recipe", ["launcher: none", "runspec: [config]"])
def test_without_a_configuration_it_is_no_field(recipe: str) -> None:
    fakes = world(recipe)
    fakes.files[".github/dispatch.yml"] = fakes.files[".github/dispatch.yml"].replace('["*", run.nodes]', ALLOWED)
    assert refused(fakes, "run.data=x").reason == "bad-key"


@pytest.mark.parametrize(
    ("written", "key"),
    [("run.env.nodes=4", "run.nodes"), ("run.env.env_vars.A=1", "run.env_vars.A"), ("run.environment=x", "run.environment")],
)
def test_nemotrons_name_for_the_profile(written: str, key: str) -> None:
    assert parse_line(written) == Run(overrides=(Override(key, written.partition("=")[2]),)), key
    assert parse_override(written) == Override(key, written.partition("=")[2])


def test_one_field_under_both_names_is_given_twice() -> None:
    found = parse_line("run.nodes=4 run.env.nodes=4")
    assert isinstance(found, Malformed)
    assert found.reason_code == "duplicate-key"


def test_an_option_of_python_is_none_of_torchruns() -> None:
    assert prepared(world("cmd: 'python3 -u {script}', launcher: torchrun")).plan.for_compiler()["entrypoint"] == "python3"
    with pytest.raises(ConfigError, match="option of its own"):
        prepared(world("cmd: 'python -u {script}', launcher: torchrun"))
