"""`profile import`: what is taken from the text of a NeMo-Run program, and what is said about the rest."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.errors import ConfigError
from dispatcher.importing import Imported, imported
from dispatcher.profile import ResolvedProfile, resolve_profile

HEAD = "import os\nimport nemo_run as run\n"


def the_only(text: str, **more: Any) -> Imported:
    [one] = imported(HEAD + text, "infra.py", **more)
    return one


def table_of(text: str) -> dict[str, Any]:
    table = yaml.safe_load(the_only(text).text)
    assert isinstance(table, dict)
    return table


SLURM = "ex = run.SlurmExecutor({})\n"

# The program, and what its profile has beside `executor`, `tunnel` and `time`.
TAKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "a literal of each kind": (
        SLURM.format("account='ml', nodes=2, exclusive=True, mem=0, srun_args=['--mpi=pmix'], retries=None"),
        {"account": "ml", "nodes": 2, "exclusive": True, "mem": "0", "srun_args": ["--mpi=pmix"]},
    ),
    "imported by its own name": ("from nemo_run import SlurmExecutor\nex = SlurmExecutor(account='ml')\n", {"account": "ml"}),
    "as a Config": ("ex = run.Config(run.SlurmExecutor, account='ml')\n", {"account": "ml"}),
    "names that were set before": ("N = 2\nG = 4 * N\n" + SLURM.format("nodes=N, gpus_per_node=G"), {"nodes": 2, "gpus_per_node": 8}),
    "assigned later": (SLURM.format("nodes=1") + "ex.nodes = 4\nex.account = 'ml'\n", {"nodes": 4, "account": "ml"}),
    "an f-string": ("W = 'nemo'\n" + SLURM.format("container_image=f'nvcr.io/{W}:{25}.04'"), {"container_image": "nvcr.io/nemo:25.04"}),
    "a joined path": (SLURM.format("container_image=os.path.join('/img', 'a.sqsh')"), {"container_image": "/img/a.sqsh"}),
    "a table put together": (
        "E = {'A': '1'}\nE['B'] = 2\nE.update({'C': '3'}, D='4')\nE |= {'F': '5'}\n" + SLURM.format("env_vars={**E, 'low': 'x'}"),
        {"env_vars": {"A": "1", "B": "2", "C": "3", "D": "4", "F": "5", "LOW": "x"}},
    ),
    "a list put together": (
        "M = ['/a:/a']\nM.append('/b:/b')\nM += ['/c:/c']\n" + SLURM.format("container_mounts=[*M, '/d:/d']"),
        {"mounts": ["/a:/a", "/b:/b", "/c:/c", "/d:/d"]},
    ),
    "a list that is changed after it was given": (
        "M = ['/a:/a']\n" + SLURM.format("container_mounts=M") + "M.append('/b:/b')\nex.container_mounts.append('/c:/c')\n",
        {"mounts": ["/a:/a", "/b:/b", "/c:/c"]},
    ),
    "keywords from a table": ("C = dict(account='ml', nodes=3)\n" + SLURM.format("**C"), {"account": "ml", "nodes": 3}),
    "a variable of the runner": (
        SLURM.format("account=os.environ['ACCOUNT'], partition=os.getenv('PART', 'batch'), qos=os.environ.get('QOS')"),
        {"account": "${oc.env:ACCOUNT}", "partition": "${oc.env:PART,batch}", "qos": "${oc.env:QOS}"},
    ),
    "a text that looks like one is no question": (
        SLURM.format("setup_lines='cd ${HOME}\\n\\necho hi'"),
        {"setup_lines": ["cd \\${HOME}", "echo hi"]},
    ),
    "an SSH tunnel": (
        "t = run.SSHTunnel(host='login.example.com', user='me', job_dir='/jobs', port=2222)\n" + SLURM.format("tunnel=t"),
        {"tunnel": "ssh", "host": "login.example.com", "user": "me", "remote_job_dir": "/jobs", "port": 2222},
    ),
    "the git packager": (
        SLURM.format("packager=run.GitArchivePackager(subpath='src', include_submodules=False, ref='HEAD')"),
        {"packager": {"type": "git", "subpath": "src", "include_submodules": False}},
    ),
    "the git packager as it is": (SLURM.format("packager=run.GitArchivePackager()"), {"packager": "git"}),
    "the passthrough packager": (SLURM.format("packager=run.Packager()"), {"packager": "none"}),
    "the pattern packager": (
        SLURM.format("packager=run.PatternPackager(include_pattern='src/**', relative_path=os.getcwd())"),
        {"packager": {"type": "pattern", "include_pattern": "src/**"}},
    ),
    "the hybrid packager": (
        "p = run.HybridPackager(sub_packagers={'code': run.GitArchivePackager(subpath='src'),\n"
        "    'configs': run.PatternPackager(include_pattern=['configs/*.yaml'], relative_path='configs')}, extract_at_root=True)\n"
        + SLURM.format("packager=p"),
        {
            "packager": {
                "type": "hybrid",
                "sub_packagers": {
                    "code": {"type": "git", "subpath": "src"},
                    "configs": {"type": "pattern", "include_pattern": ["configs/*.yaml"], "relative_path": "configs"},
                },
                "extract_at_root": True,
            }
        },
    ),
    "handles of jobs": (SLURM.format("dependencies=['slurm_tunnel://x/12', 'slurm://y/34_5']"), {"dependencies": ["12", "34_5"]}),
    "more options": (
        SLURM.format("additional_parameters={'mail_type': 'END', 'contiguous': True, 'nice': 5}"),
        {"additional_parameters": {"mail_type": "END", "contiguous": True, "nice": "5"}},
    ),
    "a function with its defaults": (
        "def cluster(nodes: int = 2, *, gpus=8):\n    ex = run.SlurmExecutor(account='ml', nodes=nodes)\n"
        "    ex.gpus_per_node = gpus\n    return ex\n",
        {"account": "ml", "nodes": 2, "gpus_per_node": 8},
    ),
    "a function with what it was called with": (
        "def cluster(account, nodes=2, mounts=None):\n    m = ['/a:/a']\n    if mounts:\n        m.extend(mounts)\n"
        "    if not account or mounts is None:\n        raise ValueError\n"
        "    return run.SlurmExecutor(account=account, nodes=nodes, container_mounts=m)\n"
        "ex = cluster('ml', nodes=16, mounts=['/b:/b'])\n",
        {"account": "ml", "nodes": 16, "mounts": ["/a:/a", "/b:/b"]},
    ),
    "in the main block": (
        "if __name__ == '__main__':\n    with run.Experiment('x') as e:\n        ex = run.SlurmExecutor(nodes=2)\n",
        {"nodes": 2},
    ),
    "in an argument": ("run.run(task, executor=run.SlurmExecutor(account='ml'))\n", {"account": "ml"}),
    "components": (
        "a = run.SlurmExecutor(account='ml', nodes=1, gpus_per_node=8, heterogeneous=True)\nb = a.clone()\nb.nodes = 2\n"
        "b.gpus_per_node = None\nboth = [a, b]\n",
        {"account": "ml", "het_groups": [{"nodes": 1, "gpus_per_node": 8}, {"nodes": 2}]},
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken(name: str) -> None:
    program, expected = TAKEN[name]
    assert table_of(program) == {"executor": "slurm", "tunnel": "local", "time": "00:10:00", **expected}


@pytest.mark.parametrize("default", ["batch", "", "a,b", "it's", "a b", "{x}", "1:00:00", "/lustre/a", "\\", "a\\'b"])
def test_a_default_of_a_variable_is_what_it_was(default: str) -> None:
    one = the_only(f"ex = run.LocalExecutor(env_vars={{'A': os.getenv('X', {default!r})}})\n")
    resolved = resolve_profile(one.name, {one.path: one.text}, one.asks_for, {})
    assert isinstance(resolved, ResolvedProfile)
    assert resolved.profile.env_vars == {"A": default}


def test_the_local_executor() -> None:
    assert table_of("ex = run.LocalExecutor(ntasks_per_node=8, env_vars={'A': '1'})\n") == {
        "executor": "local",
        "nproc_per_node": 8,
        "env_vars": {"A": "1"},
    }


def test_the_docker_executor() -> None:
    """Fields that are called otherwise here; those behind an API have no tunnel of their own."""
    program = (
        'ex = run.DockerExecutor(container_image="python:3.12", num_gpus=2, runtime="nvidia", ipc_mode="host", shm_size="30g",\n'
        '    volumes=["/local/path:/path/in/container"], env_vars={"PYTHONUNBUFFERED": "1"}, packager=run.Packager())\n'
    )
    assert table_of(program) == {
        "executor": "docker",
        "container_image": "python:3.12",
        "gpus_per_node": 2,
        "runtime": "nvidia",
        "ipc_mode": "host",
        "shm_size": "30g",
        "mounts": ["/local/path:/path/in/container"],
        "env_vars": {"PYTHONUNBUFFERED": "1"},
        "packager": "none",
    }
    one = the_only(program)
    assert isinstance(resolve_profile(one.name, {one.path: one.text}, (), {}), ResolvedProfile)
    assert "line 3: num_gpus: write how many there are" in the_only("ex = run.DockerExecutor(num_gpus=-1)\n").text


def test_the_kubeflow_executor() -> None:
    """As NeMo-Run's example has it, with arguments of its command line, of which nothing is known."""
    program = (
        "from nemo_run.core.execution.kubeflow import KubeflowExecutor\n"
        'ex = KubeflowExecutor(launcher=run.Torchrun(), namespace=args.namespace, image="nvcr.io/nvidia/nemo:25.04", num_nodes=2,\n'
        '    volumes=[{"name": "dshm", "emptyDir": {"medium": "Memory"}}, *(more() if args.pvc else [])], restart_policy="Never")\n'
    )
    one = the_only(program)
    assert yaml.safe_load(one.text) == {
        "executor": "kubeflow",
        "container_image": "nvcr.io/nvidia/nemo:25.04",
        "nodes": 2,
        "volumes": [{"name": "dshm", "emptyDir": {"medium": "Memory"}}],
    }
    assert [left.told.split("`")[0] for left in one.left] == [
        "line 4: launcher: it is the recipe's: write ",
        "line 4: namespace: ",
        "line 5: volumes: ",
        "line 5: restart_policy: a profile has no such field",
    ]


# The program, and what is said about what is not in the profile.
LEFT: dict[str, tuple[str, str]] = {
    "a call of something else": (SLURM.format("account=who()"), "line 3: account: `who()` is no literal"),
    "a name from elsewhere": (SLURM.format("account=ACCOUNT"), "line 3: account: `ACCOUNT` is not set in this file"),
    "a parameter": ("def c(account):\n    return run.SlurmExecutor(account=account)\n", "line 4: account: `account` is a parameter of `c`"),
    "an entry of a list": (SLURM.format("srun_args=['--mpi=pmix', more]"), "line 3: srun_args: `more` is not set in this file"),
    "an entry of a table": (SLURM.format("env_vars={'A': who()}"), "line 3: env_vars.A: `who()` is no literal"),
    "a wrong field": (SLURM.format("partion='x'"), "line 3: partion: a profile has no such field; did you mean `partition`?"),
    "a wrong field of the tunnel": (
        SLURM.format("tunnel=run.SSHTunnel(hots='x')"),
        "line 3: tunnel.hots: it has no counterpart here; did you mean `host`?",
    ),
    "a field that is the dispatcher's": (SLURM.format("job_name_prefix='x'"), "line 3: job_name_prefix: the job is found again by"),
    "the key": (SLURM.format("tunnel=run.SSHTunnel(identity='~/.ssh/id')"), "line 3: tunnel.identity: the key comes from the environment"),
    "a launcher": (SLURM.format("launcher='torchrun'"), "line 3: launcher: it is the recipe's: write `launcher: torchrun`"),
    "a launcher's class": (SLURM.format("launcher=run.Torchrun()"), "line 3: launcher: it is the recipe's: write `launcher: torchrun`"),
    "a launcher's options": (
        SLURM.format("launcher=run.FaultTolerance(max_restarts=3, rank_heartbeat_timeout=0.5, rdzv_backend='c10d')"),
        "line 3: launcher: it is the recipe's: write `launcher: ft` and `ft: {max_restarts: 3, rank_heartbeat_timeout: 0.5}`",
    ),
    "an option that is not here": (SLURM.format("launcher=run.SlurmRay(head_setup='x')"), "line 3: launcher.head_setup: "),
    "an option that is computed": (SLURM.format("launcher=run.FaultTolerance(max_restarts=get())"), "launcher.max_restarts: "),
    "a secret": (SLURM.format("env_vars={'HF_TOKEN': 'hf_123'}"), "line 3: env_vars.HF_TOKEN: it sounds like a secret"),
    "a secret that is computed": (
        SLURM.format("env_vars={'WANDB_API_KEY': get('abc123')}"),
        "env_vars.WANDB_API_KEY: it sounds like a secret",
    ),
    "another commit": (SLURM.format("packager=run.GitArchivePackager(ref='main')"), "line 3: packager.ref: what runs is the commit"),
    "without a name": ("ex = run.SlurmExecutor('ml')\n", "line 3: `'ml'` has no name"),
    "changed under a condition": (
        "M = ['/a:/a']\nif big():\n    M.append('/b:/b')\n" + SLURM.format("container_mounts=M"),
        "line 5: mounts: `M` is changed under a condition",
    ),
    "set under a condition": (SLURM.format("nodes=1") + "for n in (1, 2):\n    ex.nodes = n\n", "line 5: `nodes` is set under a condition"),
    "one of two values": (
        "if big():\n    n = 1\nelse:\n    n = 2\n" + SLURM.format("nodes=n"),
        "line 7: nodes: `n` depends on a condition",
    ),
    "another executor than there is here": ("ex = run.KubeRayExecutor2()\nex = run.SlurmExecutor(ray_template='x')\n", "ray_template: "),
    "a job of NeMo-Run's own": (SLURM.format("dependencies=['title_123']"), "line 3: dependencies: only ids of Slurm jobs"),
    "a mount of the run's folder": (SLURM.format("container_mounts=['/$nemo_run/x:/x']"), "the run's folder is mounted at `/nemo_run`"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_is_said_with_its_line(name: str) -> None:
    program, words = LEFT[name]
    one = the_only(program)
    assert any(words in left.told for left in one.left), [left.told for left in one.left]
    # Also in the file, where it is read by whoever completes it.
    assert words.removeprefix("line 5: mounts: ") in one.text
    assert "hf_123" not in one.text
    assert "abc123" not in one.text


def test_a_default_of_a_parameter_is_named_as_one() -> None:
    one = the_only("def c(nodes=2):\n    return run.SlurmExecutor(account='ml', nodes=nodes)\n")
    assert "nodes: 2  # line 3: the default of the parameter `nodes`" in one.text
    assert one.left == ()


SEVERAL = """
def slurm_executor(account):
    return run.SlurmExecutor(account=account)

small_one = slurm_executor("a")
big_one = slurm_executor("b")

def get(where):
    if where == "here":
        return run.LocalExecutor()
    return run.SlurmExecutor(account="c")

get("here")
run.run(x, executor=run.LocalExecutor())
"""


def test_every_executor_is_a_profile_named_after_its_variable() -> None:
    found = [(one.name, yaml.safe_load(one.text).get("account")) for one in imported(HEAD + SEVERAL, "infra.py")]
    assert found == [("small-one", "a"), ("big-one", "b"), ("get", None), ("get-2", "c"), ("local", None)]


def test_one_of_several_under_another_name() -> None:
    assert the_only(SEVERAL, only="big_one", called="cluster").path == "profiles/cluster.yaml"
    with pytest.raises(ConfigError, match=r"makes no executor `bigone`\. Did you mean `big_one`"):
        the_only(SEVERAL, only="bigone")
    with pytest.raises(ConfigError, match="makes 5 executors"):
        the_only(SEVERAL, called="cluster")


@pytest.mark.parametrize("name", ["../../x", "a/b", "", "a b", "x" * 200])
def test_a_profile_has_a_name_that_is_one(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a profile's name"):
        the_only(SLURM.format("account='ml'"), called=name)


def test_names_that_become_one_are_kept_apart() -> None:
    text = "a_b = run.LocalExecutor()\nA_B = run.LocalExecutor()\nä = run.LocalExecutor()\nö = run.LocalExecutor()\n"
    assert [one.name for one in imported(HEAD + text, "infra.py")] == ["a-b", "a-b-2", "imported", "imported-2"]


@pytest.mark.parametrize("key", ["a\nexecutor: local", "\x07", "# x", "a: b", "\u2028executor: local"])
def test_no_name_ends_a_comment(key: str) -> None:
    one = the_only(SLURM.format(f"account='ml', env_vars={{{key!r}: who()}}, **{{{key!r}: 1}}"))
    assert yaml.safe_load(one.text)["executor"] == "slurm"
    assert len(one.left) == 2


@pytest.mark.parametrize("text", ["x = (", "def", "\0", "(" * 5000, "import nemo_run as run\nprint(run)\n", ""])
def test_no_program_or_none_of_nemo_runs(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        imported(text, "infra.py")
    assert refused.value.code in ("config.syntax", "config.invalid")


def test_nothing_is_executed() -> None:
    one = the_only("import missing_module\nraise SystemExit\n" + SLURM.format("account=exit(3), nodes=[1/0]") + "1/0\n")
    assert one.name == "ex"


def test_nothing_grows_without_end() -> None:
    doubled = "a = 'x' * 10 ** 9\nb = ['y'] * 10 ** 9\nc = ['z']\n" + "c = c + c\n" * 60
    again = "def f():\n    return f()\ng = f()\ndef h(x):\n    h(x)\n    h(x)\nh(1)\n"
    one = the_only(doubled + again + SLURM.format("account=a, srun_args=c"))
    assert len(one.text) < 2_000_000


@settings(deadline=None)
@given(st.text(alphabet="abc ='\"()[]{}:,.\n\\$#*0123456789", max_size=60))
def test_any_value_becomes_a_file_that_can_be_read(value: str) -> None:
    one = the_only(SLURM.format(f"account={value!r}, env_vars={{'A': {value!r}}}"))
    read = yaml.safe_load(one.text)
    assert read["account"] == value.replace("${", "\\${")
    assert read["env_vars"] == {"A": read["account"]}
