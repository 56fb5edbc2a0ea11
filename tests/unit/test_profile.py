"""Names and texts → profiles: inheritance, variables, strict values, overrides; and hostile text at every field."""

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from dispatcher.document import Document
from dispatcher.errors import ConfigError
from dispatcher.executor import LocalProfile, Wandb
from dispatcher.grammar import Malformed, Override
from dispatcher.interpolate import interpolate
from dispatcher.profile import ResolvedProfile, UnknownProfile, needed, profile_paths, resolve_profile
from dispatcher.recipe import Recipe
from dispatcher.runprofile import FIXED_FIELDS, apply_overrides, with_recipe
from dispatcher.slurmprofile import SlurmProfile
from dispatcher.values import parse_duration, slurm_seconds

BASE = """\
executor: slurm
account: acc
host: login.example.com
user: ci
remote_job_dir: /lustre/ci/dispatch
nodes: 2
env_vars: { A: 1, b: x }
mounts: [/a:/b]
"""


def resolved(name: str, env: dict[str, str] | None = None, names: tuple[str, ...] = (), **sources: str) -> ResolvedProfile:
    found = resolve_profile(name, files(sources), names, env or {})
    assert isinstance(found, ResolvedProfile), found
    return found


def files(sources: dict[str, str]) -> dict[str, str]:
    """`cluster=` is `profiles/cluster.yaml`, `env_toml=` is `env.toml`."""
    return {"env.toml" if name == "env_toml" else f"profiles/{name}.yaml": text for name, text in sources.items()}


def refused(name: str, code: str = "config.invalid", env: dict[str, str] | None = None, names: tuple[str, ...] = (), **sources: str) -> str:
    with pytest.raises(ConfigError) as raised:
        resolve_profile(name, files(sources), names, env or {})
    assert raised.value.code == code
    return raised.value.cause


def slurm(**changes: Any) -> SlurmProfile:
    given = {"executor": "slurm", "account": "acc", "host": "h", "user": "u", "job_dir": "/x"}
    return SlurmProfile.model_validate({**given, **changes})


# --------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("name", "sources", "paths"),
    [
        ("c", {}, ("profiles/c.yaml", "env.toml")),
        ("c", {"c": BASE}, ()),
        ("c", {"c": "extends: d"}, ("profiles/d.yaml", "env.toml")),
        ("c", {"c": "extends: d", "d": BASE}, ()),
        ("c", {"env_toml": "[c]\nextends = 'd'\n[d]\nexecutor = 'local'"}, ()),
        ("c", {"env_toml": "[c]\nextends = 'd'"}, ("profiles/d.yaml",)),
        ("c", {"env_toml": "[d]"}, ("profiles/c.yaml",)),
        ("../x", {}, ()),
        ("a b", {}, ()),
    ],
)
def test_which_files_to_read_next(name: str, sources: dict[str, str], paths: tuple[str, ...]) -> None:
    assert needed(name, files(sources)) == paths


def test_no_path_leaves_the_folder() -> None:
    for name in ("../x", "a/b", "/etc/passwd", "", "a..b", "x\n"):
        assert profile_paths(name) == ()


def test_a_child_merges_tables_and_replaces_lists() -> None:
    child = "extends: base\nnodes: 4\nenv_vars: { b: y, c: z }\nmounts: [/c:/d:ro]\n"
    found = resolved("child", child=child, base=BASE)
    assert isinstance(found.profile, SlurmProfile)
    assert (found.profile.account, found.profile.nodes, found.profile.mounts) == ("acc", 4, ("/c:/d:ro",))
    assert found.profile.env_vars == {"A": "1", "b": "y", "c": "z"}
    assert found.sources == ("profiles/child.yaml", "profiles/base.yaml")


def test_null_takes_an_inherited_value_away() -> None:
    found = resolved("child", child="extends: base\nmounts: null\nnodes:\n", base=BASE)
    assert isinstance(found.profile, SlurmProfile)
    assert (found.profile.mounts, found.profile.nodes) == ((), 1)


def test_three_generations() -> None:
    found = resolved("a", a="extends: b\ntime: 1-0\n", b="extends: c\nnodes: 8\n", c=BASE)
    assert (found.profile.seconds, found.profile.nodes) == (86400, 8)


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("nodes", "profiles/child.yaml:2"),
        ("account", "profiles/base.yaml:2"),
        ("remote_job_dir", "profiles/base.yaml:5"),
        ("env_vars.A", "profiles/base.yaml:7"),
        ("env_vars.c", "profiles/child.yaml:4"),
        ("qos", "profiles/child.yaml:1"),
    ],
)
def test_every_value_knows_where_it_came_from(key: str, place: str) -> None:
    assert resolved("child", child="extends: base\nnodes: 4\nenv_vars:\n  c: z\n", base=BASE).where(key) == place


@pytest.mark.parametrize(
    ("sources", "circle"),
    [
        ({"a": "extends: a"}, "`profiles/a.yaml:1`: `a` → `a`"),
        ({"a": "extends: b", "b": "nodes: 1\nextends: a"}, "`profiles/b.yaml:2`: `a` → `b` → `a`"),
        ({"a": "extends: b", "b": "extends: c", "c": "extends: b"}, "`b` → `c` → `b`"),
    ],
)
def test_a_circle_is_named(sources: dict[str, str], circle: str) -> None:
    assert circle in refused("a", "config.extends-cycle", **sources)
    with pytest.raises(ConfigError, match="→"):
        needed("a", files(sources))


def test_an_unknown_profile_is_a_value_with_the_nearest_name() -> None:
    found = resolve_profile("clutser", {"env.toml": "[cluster]\n[wandb]\nproject='x'"}, (), {})
    assert found == UnknownProfile("clutser", "cluster", ("cluster",))
    assert UnknownProfile("locl", None, ()).among(["local", "slurm"]) == UnknownProfile("locl", "local", ("local", "slurm"))
    assert UnknownProfile("zzz", None, ()).among(["local"]).nearest is None


@pytest.mark.parametrize("name", ["wandb", "cli", "cache", "artifacts"])
def test_reserved_sections_are_no_profiles(name: str) -> None:
    assert isinstance(resolve_profile(name, {"env.toml": f"[{name}]\nexecutor = 'local'"}, (), {}), UnknownProfile)


def test_an_unknown_parent_is_an_error_at_its_line() -> None:
    assert refused("a", a="nodes: 1\nextends: bsae", base=BASE) == "`profiles/a.yaml:2`: there is no profile `bsae`; did you mean `base`?"


def test_env_toml_as_nemotron_writes_it() -> None:
    text = """\
[wandb]
project = "p"
entity = "e"
[base]
executor = "slurm"
account = "acc"
tunnel = "ssh"
host = "h"
user = "u"
remote_job_dir = "/x"
[dgx]
extends = "base"
container = "nvcr.io#nvidia/nemo:25.04"
run_partition = "interactive"
batch_partition = "batch"
time = 04:00:00
lustre_mount = "/lustre:/lustre"
mounts = ["/a:/b"]
detach = true
startup_commands = ["ulimit -n 65536", "date"]
setup_lines = '''
echo \\${HOME}
echo 2
'''
[dgx.env_vars]
NCCL_DEBUG = "WARN"
[dgx.wandb]
project = "q"
"""
    found = resolved("dgx", env_toml=text)
    profile = found.profile
    assert isinstance(profile, SlurmProfile)
    assert (profile.container_image, profile.time, profile.attach) == ("nvcr.io#nvidia/nemo:25.04", "04:00:00", False)
    assert profile.container_mounts == ("/a:/b", "/lustre:/lustre")
    assert profile.shell_lines == ("echo ${HOME}", "echo 2", "ulimit -n 65536", "date")
    assert profile.environment == {"WANDB_PROJECT": "q", "WANDB_ENTITY": "e", "NCCL_DEBUG": "WARN"}
    assert (profile.partition_for(attached=True), profile.partition_for(attached=False)) == ("interactive", "batch")
    assert found.where("container_image") == "env.toml:13"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[A=1, B=x=y]", {"A": "1", "B": "x=y"}),
        ("[{name: A, value: 1}, B=2]", {"A": "1", "B": "2"}),
        ("[{A: 1}]", None),
        ("[A]", None),
        ("[A=1, A=2]", None),
        ("{A: 1.10}", {"A": "1.10"}),
        ("{lower: 'x y; $(id)'}", {"lower": "x y; $(id)"}),
    ],
)
def test_environment_as_table_or_list(written: str, expected: dict[str, str] | None) -> None:
    text = BASE.replace("{ A: 1, b: x }", written)
    if expected is None:
        assert "profiles/c.yaml:7" in refused("c", c=text)
    else:
        assert resolved("c", c=text).profile.env_vars == expected


# --------------------------------------------------------------------------- what is wrong is named


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gpu_per_node: 8", "`profiles/c.yaml:9`: `gpu_per_node` is not a key here; did you mean `gpus_per_node`?"),
        ("executer: slurm", "did you mean `executor`?"),
        ("cpus_per_node: 8", "did you mean `gpus_per_node`?"),
        ("identity: ~/.ssh/id", "`profiles/c.yaml:9`: `identity` is not read: the key comes from the environment, `DISPATCH_SSH_KEY`"),
        ("container: a\ncontainer_image: b", "`container` and `container_image` mean the same"),
        ("job_dir: /x", "mean the same"),
        ("detach: 3", "`detach` is `true` or `false`"),
        ("packager: pattern", "the packager `pattern` needs an `include_pattern`"),
        ("extends: [a]", "`extends` is not the name of one profile"),
        ("wandb: {projct: x}", "`wandb.projct` is not a key here; did you mean `project`?"),
        ("mem: 1G\nmem_per_cpu: 1G", "exclude each other"),
        ("array: 0-1\nhet_groups: [{}, {}]", "`array` and `het_groups` exclude each other"),
        ("het_groups: [{}]", "has one component"),
        ("het_groups: [{}, {node: 1}]", "did you mean `nodes`?"),
        ("het_groups: [{}, {env_vars: {a: 1}}]", "`a` has small letters"),
        ("het_groups: [{}, {env_vars: {PATH: 1}}]", "`PATH` is set by the system"),
        ("het_groups: [{}, {srun_args: --x=$(id)}]", "srun argument"),
        ("additional_parameters: {comment: x}", "`profiles/c.yaml:9`: `comment` is set by the dispatcher itself"),
        ("additional_parameters: {outpu: /home/x}", "`outpu` is set by the dispatcher itself"),
        ("additional_parameters: {get_user: x}", "`get_user` is set by the dispatcher itself"),
        ("additional_parameters: {container-image: x}", "`container-image` is set by the dispatcher itself"),
        ("additional_parameters: {job_name: x}", "set by the dispatcher"),
        ("additional_parameters: {job-name: x}", "set by the dispatcher"),
        ("log_url: https://x/{jobid}", "has a placeholder `{jobid}`; known are `{job_id}`"),
        ("log_url: https://x/{job_id", "unmatched"),
        ("log_url: https://x/{job_id!r}", "placeholder"),
        ("log_url: https://x/{job_id.real}", "placeholder"),
        ("log_url: https://x/{}", "placeholder"),
        ("log_url: javascript:alert(1)", "http(s)"),
        ("log_url: https://x/a) [b](https://y", "http(s)"),
        ("known_hosts: nonsense", "known_hosts"),
        ("time: 0", "zero means unlimited"),
        ("time: soon", "Slurm's forms"),
        ("nodes: many", "`nodes` is not a whole number"),
        ("port: 0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_key_or_value(line: str, expected: str) -> None:
    text = BASE.replace("nodes: 2\n", "") if line.startswith("nodes") else BASE
    assert expected in refused("c", c=text + line)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "`executor` is missing"),
        ("executor: mainframe", "`executor` `mainframe` is not known here: known are `slurm`, `local`"),
        ("executor: slrum", "`executor` `slrum` is not known here; did you mean `slurm`?"),
        ("", "Nemotron would take `local`, which runs the commit on this very machine"),
        ("executor: slurm\nhost: h\nuser: u\nremote_job_dir: /x", "`account` is missing"),
        (
            "executor: slurm\naccount: a\nremote_job_dir: /x",
            "`host` is missing, which `tunnel: ssh` needs; where this machine itself is the cluster's, write `tunnel: local`",
        ),
        (
            "executor: local\npackager_include_patern: x",
            "`packager_include_patern` is no option of the packager; did you mean `packager_include_pattern`?",
        ),
        ("executor: local\npackager_x: x", "`packager_x` is no option of the packager; known are `packager_subpath`"),
        ("executor: slurm\naccount: a\ntunnel: local", "`remote_job_dir` is missing"),
        ("executor: local\naccount: a", "`account` is not a key here"),
    ],
)
def test_what_an_executor_must_have(text: str, expected: str) -> None:
    assert expected in refused("c", c=text)


def test_a_runner_that_is_a_login_node_needs_no_host() -> None:
    profile = resolved("c", c="executor: slurm\naccount: a\ntunnel: local\njob_dir: /x/").profile
    assert isinstance(profile, SlurmProfile)
    assert (profile.remote_job_dir, profile.address) == ("/x", "this machine's Slurm")


def test_local_needs_nothing() -> None:
    profile = resolved("l", l="executor: local").profile
    assert isinstance(profile, LocalProfile)
    assert (profile.attach, profile.seconds, profile.job_dir) == (True, 3600, None)


# --------------------------------------------------------------------------- hostile text

HOSTILE = [
    "$(id)",
    "`id`",
    "a;b",
    "a b",
    "a\nb",
    "a\tb",
    "a'b",
    'a"b',
    "a|b",
    "a&b",
    "a>b",
    "-rf",
    "--wrap=id",
    "../x",
    "a\\b",
    "a\x00b",
    "a#b c",
    "*",
    "?",
    "a\u200bb",
    "é",
    "",
]
# Characters that a field takes on purpose; none of these values reaches a shell (sbatch reads its own lines, Markdown is escaped).
FINE = {
    ("constraint", "a|b"),
    ("constraint", "a&b"),
    ("additional_parameters", "-rf"),
    ("additional_parameters", "--wrap=id"),
    ("additional_parameters", ""),
}
FINE |= {("additional_parameters", "../x"), ("srun_args", "-rf"), ("srun_args", "--wrap=id")}
FIELDS = [
    "account",
    "partition",
    "run_partition",
    "batch_partition",
    "mem",
    "mem_per_cpu",
    "mem_per_gpu",
    "qos",
    "gres",
    "constraint",
    "exclude",
    "reservation",
    "container_image",
    "squash",
    "mounts",
    "lustre_mount",
    "additional_parameters",
    "srun_args",
    "array",
    "signal",
    "network",
    "dependencies",
    "container_env",
    "host",
    "user",
    "jump",
    "job_dir",
    "time",
    "log_url",
    "known_hosts",
]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_reaches_no_script(field: str, text: str) -> None:
    value: object = [text] if field in ("mounts", "srun_args") else {"mail_type": text} if field == "additional_parameters" else text
    values = [value] if field not in ("mounts", "lustre_mount") else [value, [f"/a:/{text}"] if field == "mounts" else f"/a:/{text}"]
    for one in values:
        if (field, text) in FINE or (field.endswith(("mount", "mounts")) and one != value and text in ("", "-rf", "../x", "--wrap=id")):
            continue
        with pytest.raises(ValueError, match=field.split("_")[0]):
            slurm(**{field: one})


def test_every_text_field_is_in_the_hostile_table() -> None:
    quoted_elsewhere = {"env_vars", "wandb", "setup_lines", "startup_commands"}  # sourced from a quoted file, or shell on purpose
    closed = {"executor", "tunnel", "packager", "exclusive", "open_mode", "dependency_type"}
    texts = {name for name, field in SlurmProfile.model_fields.items() if "str" in str(field.annotation) or name in ("mounts", "srun_args")}
    assert texts - quoted_elsewhere - closed <= set(FIELDS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("account", "my-account_1.x"),
        ("partition", "batch,interactive"),
        ("mem", "64G"),
        ("mem", "0"),
        ("mem", 64000),
        ("gres", "gpu:a100:8"),
        ("gres", "gpu:8,nvme:1"),
        ("constraint", "h100&ib"),
        ("constraint", "[rack1|rack2]"),
        ("exclude", "n[1-4,7],m1"),
        ("qos", "normal"),
        ("array", "0-7"),
        ("array", 3),
        ("array", "1,3,5-9:2%4"),
        ("signal", "USR1@120"),
        ("signal", "B:TERM"),
        ("signal", "10@60"),
        ("network", "instances=2,user_space"),
        ("dependencies", 123),
        ("dependencies", ["123_4", "123+1"]),
        ("container_env", ["NCCL_DEBUG", "lower"]),
        ("open_mode", "truncate"),
        ("container_image", "nvcr.io#nvidia/nemo:25.04"),
        ("container_image", "docker://nvcr.io/nvidia/nemo@sha256:abc"),
        ("container_image", "/lustre/images/x.sqsh"),
        ("mounts", "/a:/b"),
        ("mounts", ["/a/b-c:/d:ro", "/x:/y:ro+noexec"]),
        ("srun_args", ["--mpi=pmix", "-K1", "--container-mount-home"]),
        ("host", "10.0.0.1"),
        ("host", "::1"),
        ("user", "svc_ci.1"),
        ("jump", "ci@bastion.example.com:2222"),
        ("jump", "bastion"),
        ("job_dir", "/lustre/ci.dir/x+y@z"),
        ("exclusive", "user"),
        ("exclusive", True),
        ("additional_parameters", {"mail_type": "END", "nice": 5, "network": ""}),
        ("time", 90),
        ("time", "1-12"),
        ("log_url", "https://ood.example.com/pun/sys/dashboard/files/fs{path}?job={job_id}&u={user}"),
        ("known_hosts", "# c\nh ssh-ed25519 AAAAC3Nza= me\n|1|x=|y= ssh-rsa AAAA\n@cert-authority *.x ecdsa-sha2-nistp256 AAAA"),
        ("env_vars", {"A": "any 'text' $(id) é"}),
    ],
)
def test_honest_values_are_taken(field: str, value: object) -> None:
    assert slurm(**{field: value})


@pytest.mark.parametrize(
    "name", ["A B", "1A", "A-B", "A=B", "", "É", "PATH", "LD_PRELOAD", "SLURM_JOB_ID", "DISPATCH_RUN_KEY", "BASH_ENV", "IFS"]
)
def test_environment_names(name: str) -> None:
    with pytest.raises(ValueError, match="env_vars"):
        slurm(env_vars={name: "x"})


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("04:00:00", 14400),
        ("4:00:00", 14400),
        ("1-0", 86400),
        ("1-12:30", 131400),
        ("1-12:30:15", 131415),
        ("0:1", 1),
    ],
)
def test_slurm_times(written: str, seconds: int) -> None:
    assert slurm_seconds(written) == seconds


@pytest.mark.parametrize("written", ["", "0", "0:0", "1:2:3:4", "a", "-1", "1-", "1--2", "1:", "infinite", "1.5", "١", "1 "])
def test_no_slurm_times(written: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        slurm_seconds(written)


@pytest.mark.parametrize(
    ("written", "seconds"), [("90s", 90), ("10m", 600), ("4h", 14400), ("2d", 172800), ("1h30m", 5400), (45, 45), ("45", 45)]
)
def test_durations(written: object, seconds: int) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize("written", ["", "m", "1x", "-1m", "1.5h", True, None, [], "1m1h", "9" * 40])
def test_no_durations(written: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(written)


# --------------------------------------------------------------------------- variables

ENV = {"NAME": "value", "EMPTY": "", "DOLLAR": "${oc.env:NAME} $(id)"}


def interpolated(text: str, allowed: tuple[str, ...] = ("NAME", "EMPTY", "DOLLAR", "UNSET")) -> Any:
    return interpolate(Document("a.yaml", {"k": [text]}, {}), allowed, ENV).value["k"][0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("${oc.env:NAME}", "value"),
        ("a-${oc.env:NAME}/${ oc.env : NAME }-b", "a-value/value-b"),
        ("${oc.env:NAME,other}", "value"),
        ("${oc.env:UNSET,other}", "other"),
        ("${oc.env:UNSET, 'a, b'}", "a, b"),
        ("${oc.env:UNSET,}", ""),
        ("${oc.env:UNSET,''}", ""),
        ("${oc.env:EMPTY,other}", "other"),
        (r"\${HOME}", "${HOME}"),
        (r"\\${oc.env:NAME}", r"\value"),
        (r"\\\${oc.env:NAME}", r"\${oc.env:NAME}"),
        ("${oc.env:DOLLAR}", "${oc.env:NAME} $(id)"),
        ("$HOME $(id)", "$HOME $(id)"),
    ],
)
def test_listed_variables_are_resolved_once(text: str, value: str) -> None:
    assert interpolated(text) == value


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("${oc.env:SECRET}", "config.env-not-listed"),
        ("${oc.env:SECRET,default}", "config.env-not-listed"),
        ("${oc.env:UNSET}", "config.env-unset"),
        ("${oc.env:EMPTY}", "config.env-unset"),
        ("${account}", "config.invalid"),
        ("${.account}", "config.invalid"),
        ("${oc.decode:x}", "config.invalid"),
        ("${oc.create:x}", "config.invalid"),
        ("${oc.env:${oc.env:NAME}}", "config.env-not-listed"),
        ("${oc.env:NAME,${oc.env:SECRET}}", "config.env-not-listed"),
        ("${oc.env:NAME", "config.invalid"),
        ("${", "config.invalid"),
        ("${oc.env:N A}", "config.env-not-listed"),
        (r"\\${x}", "config.invalid"),
    ],
)
def test_nothing_else_is_resolved(text: str, code: str) -> None:
    with pytest.raises(ConfigError) as raised:
        interpolated(text)
    assert raised.value.code == code


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "${oc.env:NAME}",
        "a${oc.env:NAME}b",
        "${oc.env:UNSET_HERE,other}",
        "${oc.env:UNSET_HERE,'a, b'}",
        r"\${HOME}",
        r"\\${oc.env:NAME}",
    ],
)
def test_what_is_resolved_is_what_omegaconf_makes_of_it(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", ENV["NAME"])
    theirs = OmegaConf.to_container(OmegaConf.create({"k": text}), resolve=True)
    assert theirs == {"k": interpolated(text, ("NAME", "UNSET_HERE"))}


def test_errors_about_variables_name_the_line_and_no_value() -> None:
    cause = refused("c", "config.env-not-listed", env={"TOKEN": "hunter2"}, c=BASE + "qos: ${oc.env:TOKEN}")
    assert "`profiles/c.yaml:9`" in cause
    assert "hunter2" not in cause
    cause = refused("c", env={"TOKEN": "hunter 2"}, names=("TOKEN",), c=BASE + "qos: ${oc.env:TOKEN}")
    assert "hunter" not in cause


def test_variables_may_be_numbers() -> None:
    profile = resolved("c", env={"N": "7"}, names=("N",), c=BASE.replace("nodes: 2", "nodes: ${oc.env:N}")).profile
    assert profile.nodes == 7


# --------------------------------------------------------------------------- recipe and overrides


@pytest.mark.parametrize(
    ("word", "field", "value"),
    [
        ("run.nodes=4", "nodes", 4),
        ("run.time=10:00", "time", "10:00"),
        ("run.exclusive=true", "exclusive", True),
        ("run.env_vars.X=a b", "env_vars", {"A": "1", "X": "a b"}),
        ("run.container=img:1", "container_image", "img:1"),
        ("run.mounts=[/a:/b, /c:/d]", "mounts", ("/a:/b", "/c:/d")),
        ("run.mounts=/a:/b", "mounts", ("/a:/b",)),
        ("run.wandb.project=p", "wandb", Wandb(project="p")),
        ("train.iters=4", "nodes", 1),
    ],
)
def test_overrides_change_fields(word: str, field: str, value: object) -> None:
    key, _, text = word.partition("=")
    changed = apply_overrides(slurm(env_vars={"A": "1"}), [Override(key, text)])
    assert isinstance(changed, SlurmProfile)
    assert getattr(changed, field) == value


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [
        ("run.gpu_per_node=4", "bad-key", "`run.gpus_per_node`"),
        ("run.wandb.projct=4", "bad-key", "`run.wandb.project`"),
        ("run.zzz=4", "bad-key", "docs/profiles.md"),
        ("run.nodes.x=4", "bad-key", "`run.nodes=…`"),
        ("run.mounts[0]=/a:/b", "bad-key", "not a field"),
        ("run.a.b.c=1", "bad-key", "not a field"),
        ("run.nodes=many", "bad-value", "`run.nodes=many`"),
        ("run.nodes=0", "bad-value", "greater than or equal to 1"),
        ("run.time=0", "bad-value", "unlimited"),
        ("run.account=$(id)", "bad-value", "Slurm account"),
        ("run.container_image=a b", "bad-value", "container image"),
        ("run.env_vars.LD_PRELOAD=x", "bad-value", "LD_PRELOAD"),
        ("run.additional_parameters.comment=x", "bad-value", "set by the dispatcher"),
        ("run.host=evil.example.com", "not-here", "default branch"),
    ],
)
def test_overrides_that_cannot_be(word: str, code: str, said: str) -> None:
    key, _, text = word.partition("=")
    refusal = apply_overrides(slurm(), [Override(key, text)])
    assert isinstance(refusal, Malformed)
    assert refusal.reason_code == code
    assert said in f"{refusal.message} {refusal.hint}"


@pytest.mark.parametrize("field", sorted(FIXED_FIELDS | {"remote_job_dir"}))
def test_where_a_job_goes_is_no_commenters_choice(field: str) -> None:
    refusal = apply_overrides(slurm(), [Override(f"run.{field}", "x")])
    assert isinstance(refusal, Malformed)
    assert refusal.reason_code == "not-here"


def test_the_recipes_shape_wins_and_overrides_win_over_it() -> None:
    recipe = Recipe(script="a.py", nodes=3, gpus_per_node=0, container_image="img", env_vars={"A": "recipe", "Z": "1"})
    shaped = with_recipe(slurm(nodes=2, gpus_per_node=8, env_vars={"A": "profile"}), recipe)
    assert isinstance(shaped, SlurmProfile)
    assert (shaped.nodes, shaped.gpus_per_node, shaped.container_image) == (3, 0, "img")
    assert shaped.env_vars == {"A": "profile", "Z": "1"}
    changed = apply_overrides(shaped, [Override("run.nodes", "4")])
    assert isinstance(changed, SlurmProfile)
    assert (changed.nodes, changed.gpu_count, changed.env_vars) == (4, 0, shaped.env_vars)


def test_a_local_profile_leaves_out_what_it_has_no_use_for() -> None:
    profile = with_recipe(LocalProfile(), Recipe(script="a.py", nodes=3, nproc_per_node=2, container_image="img"))
    assert isinstance(profile, LocalProfile)
    assert (profile.nodes, profile.nproc_per_node) == (1, 2)


def test_the_log_link_quotes_what_it_is_given() -> None:
    profile = slurm(log_url="https://x/{user}/{host}{path}?j={job_id}&k={run_key}")
    assert profile.log_link("12;3", "ab", "/l/ü x/log_(1).out") == "https://x/u/h/l/%C3%BC%20x/log_%281%29.out?j=12%3B3&k=ab"
    assert slurm().log_link("1", "a", "/x") is None


def test_wandb_becomes_environment_and_env_vars_win() -> None:
    profile = slurm(wandb={"project": "p", "tags": ["a", "b"], "mode": "offline"}, env_vars={"WANDB_PROJECT": "q"})
    assert profile.environment == {"WANDB_PROJECT": "q", "WANDB_TAGS": "a,b", "WANDB_MODE": "offline"}


KEYS = st.sampled_from([*SlurmProfile.model_fields, "extends", "container", "identity", "detach", "x"])
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.sampled_from(["slurm", "local", "/x", "${oc.env:A}", "a=b"])
TABLES = st.dictionaries(
    KEYS, SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=4), SCALARS, max_size=2), max_size=8
)


@settings(max_examples=200, deadline=None)
@given(table=TABLES)
def test_any_table_is_a_profile_or_a_coded_error(table: dict[str, Any]) -> None:
    try:
        found = resolve_profile("c", {"profiles/c.yaml": yaml.safe_dump(table)}, ("A",), {"A": "1"})
    except ConfigError as error:
        code = error.code
    else:
        assert isinstance(found, ResolvedProfile | UnknownProfile)
        code = "config."
    assert code.startswith("config.")
