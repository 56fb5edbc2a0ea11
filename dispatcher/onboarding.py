"""Answers about a repository and its cluster → the files that set it up, and what is left for people to do.

`QUESTIONS` is everything that is asked, in its order; each is a flag of `nemotron-dispatch init` too. Nothing here asks or writes.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dispatcher.answer import DOCS
from dispatcher.errors import InputError
from dispatcher.executor import LocalProfile, SlurmProfile
from dispatcher.known_hosts import HostKey, name_of
from dispatcher.policy import POLICY_PATH, load_policy
from dispatcher.ports import Label
from dispatcher.profile import UnknownProfile, resolve_profile
from dispatcher.recipe import Recipe
from dispatcher.untrusted import code
from dispatcher.values import ProfileName
from dispatcher.workflows import WAYS, Choices, parse_action, parse_cron, render, workflows

Answer = str | int | bool | tuple[str, ...]
Given = Mapping[str, Any]
"""Answers so far, by the question's name: each of the type that its question reads."""

LABEL_COLOR = "1d76db"
SECRET_KEY, SECRET_HOSTS, APP_ID, APP_KEY = "CLUSTER_SSH_KEY", "CLUSTER_KNOWN_HOSTS", "DISPATCH_APP_ID", "DISPATCH_APP_KEY"
ENVIRONMENT = "cluster"
_FINGERPRINT = re.compile(r"(?:SHA256:)?([A-Za-z0-9+/]{43})=?")


@dataclass(frozen=True)
class Question:
    """One thing to know. `read` raises ValueError with words that complete “`x` is …”; `default` gives None where somebody must answer."""

    name: str
    words: str
    read: Callable[[str], Answer]
    default: Callable[[Given], str | None] = lambda given: None
    asked: Callable[[Given], bool] = lambda given: True
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The option of `init` that answers it."""
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True)
class Setup:
    """Everything answered. `keys` are the host's keys that somebody confirmed."""

    given: Given
    keys: tuple[HostKey, ...] = ()

    @property
    def slurm(self) -> bool:
        """Runs go to a cluster, rather than to the runner."""
        return bool(self.given["executor"] == "slurm")

    @property
    def profile(self) -> str:
        """The profile's name."""
        return str(self.given["profile"])

    @property
    def choices(self) -> Choices:
        """What the workflows are made from."""
        given = self.given
        return Choices(
            ways=frozenset(given["ways"]),
            gate=given.get("gate", "no"),
            end_with_pull=given.get("cancel_closed", False),
            action=parse_action(given["action"]),
            app=given["app"],
            ssh=self.slurm,
            ssh_variable=not self.keys,
            cron=given.get("cron", ""),
        )


# --------------------------------------------------------------------------- reading answers


def _of(model: type, name: str) -> Callable[[str], str]:
    """A text that the field of a model takes."""
    info = model.model_fields[name]  # type: ignore[attr-defined]
    return _as(info.rebuild_annotation())


def _as(kind: Any) -> Callable[[str], str]:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def read(text: str) -> str:
        try:
            adapter.validate_python(text)
        except ValidationError as error:
            raise ValueError(_sentence(error)) from None
        return text

    return read


def _number(model: type, name: str) -> Callable[[str], int]:
    read = _of(model, name)
    return lambda text: int(read(text))


def _sentence(error: ValidationError) -> str:
    """pydantic's first finding, completing “`x` is …”."""
    words = str(error.errors(include_url=False)[0]["msg"])
    return words.removeprefix("Value error, ").removeprefix("is ").replace("Input should be ", "not ")


def _one_of(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"none of {', '.join(names)}")
        return text

    return read


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError("neither yes nor no")
    return text == "yes"


def _ways(text: str) -> tuple[str, ...]:
    named = text.replace(",", " ").split()
    unknown = [name for name in named if name not in WAYS]
    if unknown or not named:
        raise ValueError(f"not a list of some of {', '.join(WAYS)}")
    return tuple(name for name in WAYS if name in named)


def _action(text: str) -> str:
    return parse_action(text).uses


def read_fingerprint(text: str) -> str:
    """`SHA256:…` as `ssh-keygen -l` prints it (the prefix may be missing). Raises ValueError with words that complete “`x` is …”."""
    found = _FINGERPRINT.fullmatch(text.strip())
    if not found:
        raise ValueError("not a fingerprint such as `SHA256:` and 43 letters and digits (MD5 fingerprints are not taken)")
    return f"SHA256:{found[1]}"


def _slurm(given: Given) -> bool:
    return bool(given["executor"] == "slurm")


QUESTIONS: tuple[Question, ...] = (
    Question(
        "executor",
        "What runs the jobs: a Slurm cluster over SSH, or the workflow's own machine?",
        _one_of("slurm", "local"),
        lambda given: "slurm",
        choices=("slurm", "local"),
    ),
    Question(
        "profile",
        "A name for the profile, as in `/train profile=NAME`",
        _as(ProfileName),
        lambda given: "cluster" if _slurm(given) else "local",
    ),
    Question("host", "The cluster's login node", _of(SlurmProfile, "host"), asked=_slurm),
    Question("port", "Its SSH port", _number(SlurmProfile, "port"), lambda given: "22", _slurm),
    Question("user", "The account there", _of(SlurmProfile, "user"), asked=_slurm),
    Question("account", "The Slurm account that jobs are charged to", _of(SlurmProfile, "account"), asked=_slurm),
    Question(
        "partition",
        "The partition (empty: the cluster's default)",
        lambda text: _of(SlurmProfile, "partition")(text) if text else "",
        lambda given: "",
        _slurm,
    ),
    Question("job_dir", "A folder on the cluster for runs, which the compute nodes see too", _of(SlurmProfile, "job_dir"), asked=_slurm),
    Question("nodes", "Nodes of a job", _number(SlurmProfile, "nodes"), lambda given: "1", _slurm),
    Question(
        "gpus", "GPUs on each node (0: the profile does not ask for any)", _number(SlurmProfile, "gpus_per_node"), lambda given: "0", _slurm
    ),
    Question("time", "A job's time limit", _of(SlurmProfile, "time"), lambda given: "04:00:00" if _slurm(given) else "01:00:00"),
    Question("script", "The script that `/train` runs", _of(Recipe, "script")),
    Question(
        "launcher",
        "What starts its processes",
        _one_of("none", "torchrun"),
        lambda given: "torchrun" if given.get("gpus", 0) > 1 or given.get("nodes", 1) > 1 else "none",
        choices=("none", "torchrun"),
    ),
    Question(
        "ways",
        f"How runs are asked for, some of {', '.join(WAYS)}",
        _ways,
        lambda given: "comments,labels,manual",
    ),
    Question(
        "cron", "When, as a cron expression (UTC)", parse_cron, lambda given: "17 3 * * 1-5", lambda given: "schedule" in given["ways"]
    ),
    Question(
        "gate",
        "Must runs have passed before a merge? `check` is enough for most; `job` also writes a workflow that fails until then",
        _one_of("no", "check", "job"),
        lambda given: "no",
        _slurm,
        choices=("no", "check", "job"),
    ),
    Question(
        "cancel_closed",
        "Cancel a pull request's runs when it is closed or becomes a draft?",
        _yes_or_no,
        lambda given: "yes",
        _slurm,
        choices=("yes", "no"),
    ),
    Question(
        "app",
        "Speak as a GitHub App of your own? It gives checks that nobody else can make, buttons, and rules with teams",
        _yes_or_no,
        lambda given: "no",
        choices=("yes", "no"),
    ),
    Question("action", "The action and its commit, `owner/name@<40 hex digits> # v1.2.3`", _action),
)


def gather(flags: Mapping[str, str | None], found: Mapping[str, str], ask: Callable[[Question, str | None], Answer] | None) -> Given:
    """Every answer: from its flag, else by asking (`found` and the questions' own defaults are proposed), else the default.

    Raises:
        InputError: `input.answer` for a flag that cannot be used; `input.missing` names what is needed where nobody can be asked.
    """
    given: dict[str, Answer] = {}
    missing = []
    for question in QUESTIONS:
        flag = flags.get(question.name)
        if not question.asked(given):
            if flag is not None:
                raise InputError("input.answer", f"`{question.flag}` says nothing here: another answer leaves no room for it.")
            continue
        default = found.get(question.name) or question.default(given)
        if flag is None and ask is not None:
            given[question.name] = ask(question, default)
        elif flag is None and default is None:
            missing.append(question)
        else:
            given[question.name] = _read(question, flag if flag is not None else str(default))
    if missing:
        listed = ", ".join(f"`{question.flag}`" for question in missing)
        what = "\n".join(f"  {question.flag}: {question.words}" for question in missing)
        raise InputError("input.missing", f"Nobody can be asked here, and {listed} must be given.\n{what}", f"Give {listed}.")
    return given


def _read(question: Question, text: str) -> Answer:
    try:
        return question.read(text)
    except ValueError as error:
        raise InputError("input.answer", f"`{question.flag}`: {code(text)} is {error}.") from None


# --------------------------------------------------------------------------- files


def setup_files(setup: Setup) -> dict[str, str]:
    """Path in the repository → text, each checked by what will read it.

    Raises `ConfigError` (`config.invalid`) where answers that are fine one by one do not fit together.
    """
    given, profile = setup.given, f"profiles/{setup.profile}.yaml"
    written = {f".github/workflows/{name}": text for name, text in workflows(setup.choices).items()}
    written[POLICY_PATH] = _policy(setup)
    written[profile] = _profile(setup)
    load_policy(written[POLICY_PATH])
    resolved = resolve_profile(setup.profile, {profile: written[profile]}, (), {})
    assert not isinstance(resolved, UnknownProfile)
    assert isinstance(resolved.profile, SlurmProfile if given["executor"] == "slurm" else LocalProfile)
    return written


def _policy(setup: Setup) -> str:
    given, choices = setup.given, setup.choices
    marks = {
        name for name, holds in (("gate", choices.gate != "no"), ("schedule", bool(choices.cron)), ("local", not setup.slurm)) if holds
    }
    values = {
        "docs": DOCS,
        "profile": yaml_word(setup.profile),
        "script": yaml_word(given["script"]),
        "launcher": given["launcher"],
        "ended": "cancel" if choices.end_with_pull else "leave",
        "cron": choices.cron,
    }
    return render("dispatch.yml", marks, values)


def _profile(setup: Setup) -> str:
    given = setup.given
    if not setup.slurm:
        return render("profile-local.yaml", (), {"docs": DOCS, "profile": setup.profile, "time": given["time"]})
    marks = {name for name, holds in (("partition", given["partition"]), ("gpus", given["gpus"]), ("known-hosts", setup.keys)) if holds}
    where = name_of(given["host"], given["port"])
    values = {name: yaml_word(str(given[name])) for name in ("host", "user", "account", "partition", "job_dir")}
    values |= {"docs": DOCS, "profile": setup.profile, "time": given["time"]}
    values |= {name: str(given[name]) for name in ("port", "nodes", "gpus")}
    values["fingerprints"] = "\n".join(f"{key.kind} {key.fingerprint}" for key in setup.keys)
    values["known_hosts"] = "\n".join(f"{where} {key.line}" for key in setup.keys)
    return render("profile-slurm.yaml", marks, values)


def yaml_word(text: str) -> str:
    """A text as YAML takes it for a text in every version: bare where it can be, else in double quotes."""
    plain = re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", text) and text.lower() not in (
        "null",
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
    )
    return text if plain else json.dumps(text)


# --------------------------------------------------------------------------- what is left to do


@dataclass(frozen=True)
class Place:
    """The repository on GitHub, as far as the checkout says: `owner/name` or empty, and its default branch."""

    repository: str
    branch: str = "main"


@dataclass(frozen=True)
class Steps:
    """Shell lines to type, below the words that explain them."""

    title: str
    lines: tuple[str, ...] = ()
    words: str = ""


def wanted_labels(setup: Setup) -> tuple[Label, ...]:
    """The labels that ask for runs; none unless labels are a way in."""
    if "labels" not in setup.given["ways"]:
        return ()
    return (Label(f"train:{setup.profile}", LABEL_COLOR, f"Run this pull request once with the profile {setup.profile}"[:100]),)


def label_lines(labels: Sequence[Label], place: Place) -> tuple[str, ...]:
    """`gh` commands that make the labels; https://cli.github.com/manual/gh_label_create."""
    at = _at(place)
    return tuple(
        f'gh label create "{label.name}" --color {label.color} --description "{label.description}" --force{at}' for label in labels
    )


def next_steps(setup: Setup, place: Place, labels_made: bool) -> tuple[Steps, ...]:
    """What only people can do: the environment, its secret and variables, labels, the rule that requires the gate."""
    at = _at(place)
    steps = []
    if setup.slurm or setup.choices.app:
        steps.append(Steps("An environment that only the default branch may use", _environment_lines(setup, place)))
        steps.append(Steps("Its secrets and variables", tuple(line + at for line in _secret_lines(setup)), _secret_words(setup)))
    labels = wanted_labels(setup)
    if labels and not labels_made:
        steps.append(Steps("The label", label_lines(labels, place)))
    gate = setup.choices.gate
    if gate != "no":
        name, source = (
            ("gate", "GitHub Actions") if gate == "job" else ("dispatch/gate", "the App" if setup.choices.app else "GitHub Actions")
        )
        words = f"In the branch's rules (Settings, Rules, Rulesets) require the status check `{name}`, with {source} as its source."
        steps.append(Steps("The rule", (), words))
    steps.append(Steps("Commit and push", ("git add .github profiles", 'git commit -m "Add nemotron-dispatch"', "git push")))
    return tuple(steps)


def _environment_lines(setup: Setup, place: Place) -> tuple[str, ...]:
    """https://docs.github.com/rest/deployments/environments, and its branch policies."""
    where = f"repos/{place.repository or '{owner}/{repo}'}/environments/{ENVIRONMENT}"
    only = ("-F 'deployment_branch_policy[protected_branches]=false'", "-F 'deployment_branch_policy[custom_branch_policies]=true'")
    names = [place.branch, *([f"gh-readonly-queue/{place.branch}/*"] if "merge-queue" in setup.given["ways"] else [])]
    made = " \\\n  ".join((f"gh api -X PUT {where}", *only))
    return (made, *(f"gh api -X POST {where}/deployment-branch-policies \\\n  -f {shlex.quote(f'name={name}')}" for name in names))


def _secret_lines(setup: Setup) -> list[str]:
    """Each reads from a file, so that no secret stands in a shell's history; https://cli.github.com/manual/gh_secret_set."""
    lines = []
    if setup.slurm:
        lines.append(f"gh secret set {SECRET_KEY} --env {ENVIRONMENT} < dispatch-key")
        if not setup.keys:
            lines.append(f"gh variable set {SECRET_HOSTS} --env {ENVIRONMENT} < known_hosts")
    if setup.choices.app:
        lines.append(f"gh variable set {APP_ID} --env {ENVIRONMENT} < app-id")
        lines.append(f"gh secret set {APP_KEY} --env {ENVIRONMENT} < app.private-key.pem")
    return lines


def _secret_words(setup: Setup) -> str:
    parts = []
    if setup.slurm:
        parts.append("`dispatch-key` is the private half of a key made for this (`ssh-keygen -t ed25519 -f dispatch-key`); its public half")
        parts.append(f"belongs into `~/.ssh/authorized_keys` of `{setup.given['user']}` on the cluster.")
        if not setup.keys:
            parts.append("`known_hosts` has the host's public keys, compared with what the administrators published.")
    if setup.choices.app:
        parts.append("The App's id and private key are on its settings page.")
    return " ".join(parts)


def _at(place: Place) -> str:
    return f" --repo {place.repository}" if place.repository else ""
