"""What `nemotron-dispatch init` has to know about a repository and its cluster: the questions, and answers or flags → checked values.

`QUESTIONS` is everything that is asked, in its order; each is a flag too. Nothing here asks anybody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dispatcher.errors import InputError
from dispatcher.slurmprofile import SlurmProfile
from dispatcher.untrusted import code
from dispatcher.values import ProfileName, RelativePath
from dispatcher.workflows import WAYS, parse_action, parse_cron

Answer = str | int | bool | tuple[str, ...]
Given = Mapping[str, Any]
"""Answers so far, by the question's name: each of the type that its question reads."""

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
    Question("script", "The script that `/train` runs", _as(RelativePath)),
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
