"""A merged configuration × what is known about the job → `train.yaml`, which the script gets, and `job.yaml`, its provenance.

As in Nemotron (https://github.com/NVIDIA-NeMo/Nemotron/blob/main/src/nemo_runspec/config/loader.py) the section `run` is about the job: it
is taken out, but for what is neither `env` nor `wandb` (names of artifacts, which `${art:…}` looks up on the cluster), and `${run.…}` is
filled in. `${oc.env:PWD}` means the code, `${oc.env:NEMO_RUN_DIR}` the run's folder; no other variable is read here, and every other
`${…}` stays as it is for the script's own OmegaConf.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.authorise import Grant
from dispatcher.configmerge import STEP
from dispatcher.errors import ConfigError
from dispatcher.ports import CompiledFile
from dispatcher.registry import Profile
from dispatcher.trainconfig import Composed, chosen, into_config
from dispatcher.untrusted import code

# What of `run` is the dispatcher's; the rest goes with the script's part.
OWN_PARTS = frozenset({"env", "wandb", "cli", "recipe", "mode", "profile"})
# What of a profile its job's configuration may refer to as `run.env.…`.
_FIELDS = ("executor", "account", "partition", "time", "nodes", "gpus_per_node", "ntasks_per_node", "nproc_per_node", "container_image")
CHAIN_LIMIT = 10
SIZE_LIMIT = 1024 * 1024
SCRIPT_LIMIT = 64 * 1024

# A reference or a resolver, not escaped: in OmegaConf's grammar a backslash before `${` takes its meaning away, two are one backslash.
_START = r"(?<!\\)((?:\\\\)*)"
_BEGINS = re.compile(_START + r"\$\{")
_VARIABLE = re.compile(_START + r"\$\{\s*oc\.env:\s*(['\"]?)(PWD|NEMO_RUN_DIR)\2\s*(?:,[^{}]*)?\}")
_RUN = re.compile(_START + r"\$\{\s*run\.([A-Za-z_][\w-]*(?:\.[\w-]+)*)\s*\}")
_OTHER_RUN = re.compile(_START + r"\$\{\s*(?:oc\.select:\s*)?run\s*[.\[}]")
_KEPT = re.compile(_START + r"\$\{\s*([A-Za-z_][\w.]*)\s*:")


@dataclass(frozen=True)
class JobFacts:
    """What a configuration may refer to as `run.…`: `env` are fields of the profile as it will run, `wandb` its table.

    `recipe`, `cli` and `source` say what was asked for, and of which commit.
    """

    profile: str
    env: Mapping[str, Any]
    wandb: Mapping[str, Any]
    recipe: Mapping[str, Any]
    cli: Mapping[str, Any]
    source: Mapping[str, Any]

    def section(self, own: Mapping[Any, Any]) -> dict[Any, Any]:
        """The section `run` of the job: what the configuration says, below what is so."""
        # What the configuration asks for and does not get is not so.
        env = {key: value for key, value in _table(own.get("env")).items() if key not in (*_FIELDS, "container")}
        wandb = _table(own.get("wandb"))
        known = {"profile": self.profile, "recipe": dict(self.recipe), "cli": dict(self.cli), "source": dict(self.source)}
        return {**own, "env": {**env, **self.env}, "wandb": {**wandb, **self.wandb}, **known}


def job_facts(grant: Grant, profile: Profile, program: str, job_dir: str) -> JobFacts:
    """Of the profile what says where and how big, never its variables; and what was granted."""
    fields = profile.model_dump(mode="json")
    env = {name: fields[name] for name in _FIELDS if fields.get(name) is not None}
    env |= {"job_dir": job_dir, "remote_job_dir": job_dir}
    env |= {"container": env["container_image"]} if "container_image" in env else {}
    return JobFacts(
        profile=grant.profile,
        env=env,
        wandb={name: value for name, value in _table(fields.get("wandb")).items() if value not in (None, [], "")},
        recipe={"name": grant.recipe, "script": program},
        cli={"dotlist": [item.word for item in into_config(grant.overrides)], "config": chosen(grant.overrides)},
        source={"repository": grant.repository, "sha": grant.sha, "asked_by": grant.actor},
    )


@dataclass(frozen=True)
class JobConfig:
    """The configuration of one job. `run_dir` is the run's folder as the program sees it, everywhere here."""

    composed: Composed
    facts: JobFacts

    def path(self, run_dir: str) -> str:
        """The script's file."""
        return f"{run_dir}/{self._name}"

    def option(self, run_dir: str) -> tuple[str, str]:
        """The two words by which the script gets it."""
        return self.composed.spec.option, self.path(run_dir)

    def text(self, run_dir: str) -> str:
        """What is in it. Raises `ConfigError` where it cannot be filled in."""
        return train_text(self.composed, self.facts, run_dir)

    def lines(self, run_dir: str) -> tuple[str, ...]:
        """Bash that writes the script's file, where nothing but the job's own script gets there (executors behind an API).

        Raises `ConfigError` `config.invalid` for what is too long to travel in a script.
        """
        text = self.text(run_dir).encode()
        if len(text) > SCRIPT_LIMIT:
            words = (
                f"The configuration has {len(text):,} bytes; {SCRIPT_LIMIT:,} are the limit where it travels inside of the job's script."
            )
            raise ConfigError("config.invalid", words, STEP)
        folder, encoded = f"{run_dir}/configs", base64.b64encode(text).decode()
        return (f"mkdir -p {folder} && printf %s {encoded} | base64 -d >{self.path(run_dir)} || exit 1",)

    @property
    def content(self) -> str:
        """What of it determines the result: where the run's folder lies does not. Raises `ConfigError` as `text` does."""
        return self.text("/nemo_run")

    def files(self, run_dir: str) -> tuple[CompiledFile, ...]:
        """The script's file, and the whole configuration with all that is known about the job."""
        train = CompiledFile(self._name, self.text(run_dir).encode())
        return train, CompiledFile("configs/job.yaml", job_text(self.composed, self.facts, run_dir).encode())

    @property
    def _name(self) -> str:
        return f"configs/train.{'json' if self.composed.spec.format == 'json' else 'yaml'}"


def _table(value: object) -> dict[Any, Any]:
    return dict(value) if isinstance(value, dict) else {}


def train_text(composed: Composed, facts: JobFacts, run_dir: str) -> str:
    """The script's file. `run_dir` is the run's folder as the script sees it; the code is in `code/` below it.

    Raises `ConfigError` `config.invalid` for values that are missing (`???`), and for `${run.…}` that nothing sets.
    """
    own = composed.job_part
    tree = {key: value for key, value in composed.tree.items() if key != "run"}
    rest = {key: value for key, value in own.items() if key not in OWN_PARTS}
    tree |= {"run": rest} if rest else {}
    missing = [key for key, value in _leaves(tree) if value == "???"]
    if missing and composed.spec.format == "omegaconf":
        words = f"{code(missing[0])} is missing (`???`) in the configuration"
        raise ConfigError("config.invalid", f"{words}.", f"Give it: {code(missing[0] + '=…')}.")
    if composed.spec.format == "omegaconf":
        tree = _Filler(facts.section(own), run_dir).value(tree, ())
    return _written(tree, composed.spec.format)


def job_text(composed: Composed, facts: JobFacts, run_dir: str) -> str:
    """The whole configuration with everything about the job: never read again, kept beside the job to say where it came from."""
    section = facts.section(composed.job_part)
    tree = {**composed.tree, "run": {**section, "source": {**section["source"], "files": list(composed.files)}}}
    if composed.spec.format == "omegaconf":
        tree = {key: value if key == "run" else _folders(value, run_dir) for key, value in tree.items()}
    return _written(tree, "omegaconf")


def kept(text: str) -> tuple[str, ...]:
    """The resolvers whose interpolations are left to the script, by name."""
    return tuple(sorted({found[2] for found in _KEPT.finditer(text)}))


def _written(tree: Mapping[Any, Any], form: str) -> str:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if form == "json":
        text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    else:
        try:
            text = OmegaConf.to_yaml(OmegaConf.create(dict(tree)), resolve=False)
        except (OmegaConfBaseException, RecursionError) as error:
            words = code(str(error).splitlines()[0] if str(error) else type(error).__name__)
            raise ConfigError("config.invalid", f"The merged configuration is none: {words}.", STEP) from error
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ConfigError("config.invalid", "The configuration contains half a character.", STEP) from error
    if size > SIZE_LIMIT:
        raise ConfigError("config.invalid", f"The merged configuration has {size:,} bytes; {SIZE_LIMIT:,} are the limit.", STEP)
    return text


def _leaves(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield ".".join(at), value
        return
    for key, item in inner:
        yield from _leaves(item, (*at, str(key)))


# --------------------------------------------------------------------------- interpolations


def _folders(value: Any, run_dir: str) -> Any:
    """Every text with the two folders filled in."""
    if isinstance(value, dict):
        return {key: _folders(item, run_dir) for key, item in value.items()}
    if isinstance(value, list):
        return [_folders(item, run_dir) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    places = {"PWD": f"{run_dir}/code", "NEMO_RUN_DIR": run_dir}
    return _VARIABLE.sub(lambda found: found[1] + places[found[3]], value)


class _Filler:
    """Fills in what is known here; `section` is the job's `run`."""

    def __init__(self, section: Mapping[Any, Any], run_dir: str) -> None:
        self._section, self._run_dir = section, run_dir
        self._size = 0

    def value(self, value: Any, at: tuple[str, ...], above: tuple[str, ...] = ()) -> Any:
        """A value with everything below it; `above` are the references that led to it."""
        if isinstance(value, dict):
            return {key: self.value(item, (*at, str(key)), above) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, (*at, str(index)), above) for index, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        return self._text(_folders(value, self._run_dir), at, above)

    def _text(self, text: str, at: tuple[str, ...], above: tuple[str, ...]) -> Any:
        whole = _RUN.fullmatch(text)
        if whole and not whole[1]:
            return self._named(whole[2], at, above)
        filled = _RUN.sub(lambda found: found[1] + self._inside(found, text, at, above), text)
        if _OTHER_RUN.search(filled):
            raise self._refused(at, text, "`run` can only be referred to as `${run.key}`: it is no part of what the script gets")
        if "auto_mount" in kept(filled):
            raise self._refused(at, text, "`${auto_mount:…}` belongs into the list `run.env.mounts`")
        return filled

    def _inside(self, found: re.Match[str], text: str, at: tuple[str, ...], above: tuple[str, ...]) -> str:
        """A value as a part of a text. Inside of another `${…}` it must need no quotes there."""
        value = self._named(found[2], at, above)
        if isinstance(value, dict | list):
            raise self._refused(at, text, f"{code('run.' + found[2])} is a table or a list, and cannot be a part of a text")
        before = text[: found.start()]
        words = "" if value is None else str(value)
        if len(_BEGINS.findall(before)) > before.count("}") and not re.fullmatch(r"[\w./+-]*", words, re.ASCII):
            raise self._refused(at, text, f"the value of {code('run.' + found[2])} cannot stand inside of another `${{…}}`")
        return words

    def _named(self, name: str, at: tuple[str, ...], above: tuple[str, ...]) -> Any:
        """What `run.name` is, itself filled in."""
        value: Any = self._section
        for part in name.split("."):
            if not isinstance(value, dict) or part not in value:
                raise self._refused(at, f"${{run.{name}}}", "nothing sets that: neither the configuration's `run` nor the profile")
            value = value[part]
        if name in above or len(above) >= CHAIN_LIMIT:
            raise self._refused(at, f"${{run.{name}}}", "references in `run` lead in a circle")
        value = self.value(value, at, (*above, name))
        self._size += max(64, len(json.dumps(value, default=str)))
        if self._size > SIZE_LIMIT:
            raise self._refused(at, f"${{run.{name}}}", f"with all that `${{run.…}}` stands for it has more than {SIZE_LIMIT:,} characters")
        return value

    @staticmethod
    def _refused(at: tuple[str, ...], text: str, words: str) -> ConfigError:
        where = code(".".join(at))
        return ConfigError("config.invalid", f"The configuration's {where} is {code(text, 80)}: {words}.", STEP)
