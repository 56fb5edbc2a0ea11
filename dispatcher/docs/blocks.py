"""Everything that the pages take from the code: the name of a block → its Markdown."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from dispatcher import (
    chain,
    command,
    counterparts,
    executor,
    grammar,
    launcher,
    packager,
    policy,
    results,
    rules,
    runprofile,
    slurmprofile,
    squash,
    thresholds,
)
from dispatcher.approval import WAITING_LIMIT
from dispatcher.arguments import parser
from dispatcher.authorise import REASONS
from dispatcher.causes import CAUSES, Kind, blames_machine
from dispatcher.clouds import CLOUDS, CloudProfile, kuberay
from dispatcher.clouds.dgxcloud import Pvc
from dispatcher.clouds.lepton import LeptonMount
from dispatcher.clouds.skypilot import StorageMount
from dispatcher.content import PROFILE_NOT_CONTENT, RECIPE_NOT_CONTENT
from dispatcher.docs import examples
from dispatcher.docs.executors import every_field, support
from dispatcher.docs.fields import fields_table
from dispatcher.docs.modules import module_table
from dispatcher.docs.pages import quoted, table
from dispatcher.errors import CATALOGUE, EXITS
from dispatcher.pipeline import Stage
from dispatcher.recipe import Recipe
from dispatcher.registry import EXECUTORS
from dispatcher.report import TAIL_LINES
from dispatcher.slurm import State
from dispatcher.trainconfig import RecipeConfig
from dispatcher.verbs import VERBS

STATES: Mapping[State, tuple[str, str]] = {
    State.SUBMITTING: ("pending", "The lock is taken, there is no job yet."),
    State.QUEUED: (
        "pending",
        "It waits here, for a limit of the policy or for a stage before it. The scheduler has not been asked yet.",
    ),
    State.PENDING: ("pending", "The job waits in the scheduler's queue."),
    State.RUNNING: ("pending", "The job runs (or is completing, suspended, requeued by Slurm and running again)."),
    State.SUCCEEDED: ("**passes**", "It ended with exit code 0, and left the results that the recipe promises."),
    State.FAILED: ("fails", "It ended with another exit code or by a signal."),
    State.TIMEOUT: ("fails", "Slurm ended it at its time limit."),
    State.OUT_OF_MEMORY: ("fails", "Slurm ended it for its memory."),
    State.CANCELLED: ("fails", "Somebody cancelled it; or it is a stage that could not begin, because one before it went wrong."),
    State.PREEMPTED: ("fails", "Another job took its place."),
    State.NODE_FAIL: ("fails", "A node failed."),
    State.SKIPPED: ("–", "A pipeline's stage that was not needed: nothing went wrong that it is for. Its pipeline may pass."),
    State.LOST: (
        "fails",
        "The scheduler answers, and has not known the job for `watch.lost_after`; or its submission was cut off.",
    ),
    State.UNKNOWN: ("pending", "The scheduler uses a word that is not known here. Never a pass."),
}

FAMILIES: Mapping[str, str] = {
    "config": "Policy, profiles, recipes",
    "input": "What the caller hands over",
    "git": "The commit",
    "compile": "NeMo-Run",
    "ssh": "The way to the login node",
    "cluster": "The login node, its ledger, its scheduler",
    "cloud": "Executors behind an API",
    "github": "GitHub",
}


def blocks(root: Path) -> dict[str, str]:
    """All blocks by name; those about the action need its `action.yml` below `root`, and say so where there is none."""
    common = frozenset(executor.Common.model_fields) | {"attach"}
    action = _action(root / "action.yml")
    return {
        "exits": table(("status", "name", "meaning"), ((str(int(item)), item.name, words) for item, words in EXITS.items())),
        "errors": _errors(),
        "ignored": table(("reason", "meaning"), _coded(command.IGNORED)),
        "malformed": table(("reason", "meaning"), _coded(grammar.MALFORMED)),
        "denied": table(("reason", "meaning"), _coded(REASONS)),
        "not-content": table(
            ("field", "of", "why it does not count"),
            [
                *((f"`{name}`", "the profile", why) for name, why in PROFILE_NOT_CONTENT.items()),
                *((f"`{name}`", "the recipe", why) for name, why in RECIPE_NOT_CONTENT.items()),
            ],
        ),
        "states": table(("state", "gate", "meaning"), ((f"`{item.value}`", *words) for item, words in STATES.items())),
        "limits": _limits(),
        "modules": module_table(),
        "fixed-fields": ", ".join(f"`{name}`" for name in sorted(runprofile.FIXED_FIELDS)),
        "fixed-fields-cloud": _fixed(),
        "own-sbatch-options": ", ".join(f"`{name}`" for name in sorted(slurmprofile.OWN_SBATCH_OPTIONS)),
        "refused-fields": "\n".join(f"- `{name}`: {why}" for name, why in counterparts.REFUSED.items()),
        "field-aliases": table(("also written", "is"), ((f"`{alias}`", f"`{name}`") for alias, name in counterparts.ALIASES.items())),
        "log-url-fields": ", ".join(f"`{{{name}}}`" for name in executor.LOG_URL_FIELDS),
        "cli": _cli(),
        "policy": fields_table(policy.Policy),
        "policy-allow": fields_table(rules.Allow),
        "policy-overrides": fields_table(rules.Overrides),
        "policy-limits": fields_table(rules.Limits),
        "policy-most": fields_table(policy.Most),
        "policy-active": fields_table(rules.Active),
        "policy-budget": fields_table(rules.Budget),
        "policy-approval": fields_table(rules.Approval),
        "policy-profiles": fields_table(rules.Rule),
        "policy-pulls": fields_table(policy.Pulls),
        "policy-noise": fields_table(policy.Noise),
        "policy-waiver": fields_table(policy.Waiver),
        "policy-schedules": fields_table(policy.Schedule),
        "policy-gate": fields_table(policy.Gate),
        "policy-required": fields_table(policy.Required),
        "policy-reuse": fields_table(policy.Reuse),
        "policy-retries": fields_table(policy.Retries),
        "policy-watch": fields_table(policy.Watch),
        "recipe": fields_table(Recipe),
        "recipe-config": fields_table(RecipeConfig),
        "launchers": _launchers(),
        "launcher-ft": fields_table(launcher.FaultTolerance),
        "launcher-slurm-ray": fields_table(launcher.SlurmRay),
        "stage": fields_table(Stage),
        "chain": fields_table(chain.Chain),
        "packager": fields_table(packager.Packager),
        "packagers": table(("packager", "what travels"), ((f"`{name}`", words) for name, words in packager.KINDS.items())),
        "packager-support": support(),
        "every-field": every_field(),
        "profile-common": fields_table(slurmprofile.SlurmProfile, only=common),
        "profile-slurm": fields_table(slurmprofile.SlurmProfile, leave_out=common),
        "metric-rule": fields_table(thresholds.MetricRule),
        "profile-het-group": fields_table(slurmprofile.HetGroup),
        "profile-squash": fields_table(squash.Squash),
        "profile-local": fields_table(executor.LocalProfile, only=frozenset({"time", "attach"})),
        **_clouds(common),
        "profile-ray-worker-group": fields_table(kuberay.RayWorkerGroup),
        "profile-storage-mount": fields_table(StorageMount),
        "profile-dgxcloud-pvc": fields_table(Pvc),
        "profile-lepton-mount": fields_table(LeptonMount),
        "profile-wandb": fields_table(executor.Wandb),
        "comment-waiting": quoted(examples.waiting()),
        "comment-passed": quoted(examples.passed()),
        "comment-failed": quoted(examples.failed()),
        "comment-worse": quoted(examples.worse()),
        "comment-memory": quoted(examples.failed_memory()),
        "failures": _failures(),
        "comment-refused": quoted(examples.refused()),
        "comment-several": quoted(examples.several()),
        "comment-stages": quoted(examples.stages()),
        "comment-waits": quoted(examples.waits()),
        "comment-help": quoted(examples.helped()),
        "check-overridden": quoted(examples.overridden()),
        "verbs": _verbs(),
        "verbs-brief": _verbs_brief(),
        "action-inputs": _inputs(action),
        "action-outputs": _outputs(action),
    }


def _fixed() -> str:
    """What no override sets, besides what it never sets: for each executor behind an API."""
    rows = (
        (f"`{name}`", ", ".join(f"`{field}`" for field in sorted(model.FIXED - runprofile.FIXED_FIELDS))) for name, model in CLOUDS.items()
    )
    return table(("executor", "fields"), rows)


def _clouds(common: frozenset[str]) -> dict[str, str]:
    """A table for each executor behind an API, without what all of them have."""
    shared = common | frozenset(CloudProfile.model_fields) - {"nodes", "gpus_per_node"}
    tables = {f"profile-{name}": fields_table(model, leave_out=shared) for name, model in CLOUDS.items()}
    return {"profile-cloud": fields_table(CloudProfile, leave_out=common), **tables}


def _launchers() -> str:
    """Every launcher, with the executors that have it."""
    rows = [
        (f"`{name}`", *words, ", ".join(f"`{kind}`" for kind, model in EXECUTORS.items() if launcher.can_start(name, model)))
        for name, words in launcher.LAUNCHERS.items()
    ]
    return table(("launcher", "what starts", "processes on each node", "executors"), rows)


def _failures() -> str:
    """Every cause, by its class."""
    rows = [
        (
            kind.value,
            f"`{name}`",
            cause.title or "(the state's own words)",
            cause.blames,
            "yes" if blames_machine(name) else "–",
            cause.step,
        )
        for kind in Kind
        for name, cause in CAUSES.items()
        if cause.kind is kind
    ]
    return table(("class", "cause", "what the headline says", "blames", "retried", "next"), rows)


def _coded(words: Mapping[str, str]) -> Iterable[Sequence[str]]:
    return ((f"`{name}`", meaning) for name, meaning in words.items())


def _errors() -> str:
    """One table for each family, in the catalogue's order."""
    parts = []
    for family, title in FAMILIES.items():
        kinds = {name: kind for name, kind in CATALOGUE.items() if name.partition(".")[0] == family}
        rows = ((f"`{name}`", kind.meaning, kind.next_step, str(int(kind.exit))) for name, kind in kinds.items())
        parts.append(f"### {title}\n\n{table(('code', 'meaning', 'next step', 'status'), rows)}")
    return "\n\n".join(parts)


def _verbs() -> str:
    """Every verb with its examples, from the table that the help is made from."""
    rows = []
    for verb in VERBS.values():
        shown = "<br>".join(f"`/train {example}`".replace("|", "\\|") for example in verb.examples)
        rows.append((f"`/train {verb.usage}`".replace("|", "\\|"), f"{verb.does[0].upper()}{verb.does[1:]}. {verb.notes}".strip(), shown))
    return table(("command", "what it does", "for example"), rows)


def _verbs_brief() -> str:
    """Every verb in one line."""
    rows = ((f"`/train {verb.usage}`".replace("|", "\\|"), f"{verb.does[0].upper()}{verb.does[1:]}.") for verb in VERBS.values())
    return table(("comment", "what it does"), rows)


def _limits() -> str:
    rows = (
        ("characters in a command's line", f"{grammar.LINE_LIMIT:,}"),
        ("runs that one command may become, if the policy's `most.runs` allows", str(grammar.RUNS_LIMIT)),
        ("commands in one comment, if the policy's `most.commands` allows", str(grammar.COMMANDS_LIMIT)),
        ("requests that wait on one commit", str(WAITING_LIMIT)),
        ("overrides in a command", str(grammar.OVERRIDES_LIMIT)),
        ("characters in a key, in a value", f"{grammar.KEY_LIMIT}, {grammar.VALUE_LIMIT}"),
        ("lines of the log in a comment about a failed run", str(TAIL_LINES)),
        ("bytes of a results file, metrics in it", f"{results.MAX_BYTES:,}, {results.MAX_METRICS}"),
    )
    return table(("what", "at most"), rows)


def _cli() -> str:
    """Every command with its arguments; `argparse`'s own help text differs between versions of Python, so it is not taken."""
    top = parser()
    commands = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    first = next(iter(commands.choices.values()))
    shared = [action for action in first._actions if all(_has(sub, action) for sub in commands.choices.values())]
    parts = [
        "## Options of every command",
        table(("option", "meaning"), [*(_option(action) for action in shared if action.dest != "help")]),
    ]
    for name, sub in commands.choices.items():
        inner = next((action for action in sub._actions if isinstance(action, argparse._SubParsersAction)), None)
        if inner is not None:
            # A command that only has commands below it: each of them is one of its own.
            parts += [
                part
                for below, lowest in inner.choices.items()
                for part in _command(f"{name} {below}", lowest, _about(inner, below), shared)
            ]
        else:
            parts += _command(name, sub, _about(commands, name), shared)
    return "\n\n".join(parts)


def _command(name: str, sub: argparse.ArgumentParser, about: str, shared: Sequence[argparse.Action]) -> list[str]:
    """One command: what it does, its arguments, examples."""
    own = [action for action in sub._actions if not any(action.option_strings and action.dest == other.dest for other in shared)]
    arguments = [table(("argument", "meaning"), [_option(action) for action in own])] if own else []
    typed = (line.strip() for line in (sub.epilog or "").splitlines()[1:])
    return [
        f"## {name}",
        f"{about[0].upper()}{about[1:]}.",
        *arguments,
        "```console\n" + "\n".join(f"$ {line}" for line in typed) + "\n```",
    ]


def _about(commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> str:
    return next(choice.help or "" for choice in commands._choices_actions if choice.dest == name)


def _has(sub: argparse.ArgumentParser, action: argparse.Action) -> bool:
    return any(other.dest == action.dest and other.option_strings == action.option_strings for other in sub._actions)


def _option(action: argparse.Action) -> Sequence[str]:
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper() if action.nargs != 0 else ""
    if action.option_strings:
        takes = f" {name}" if name and not isinstance(action, argparse.BooleanOptionalAction) else ""
        return ", ".join(f"`{option}{takes}`" for option in action.option_strings), action.help or ""
    optional = action.nargs in ("?", "*")
    return f"`[{name}]`" if optional else f"`{name}`", action.help or ""


def _action(path: Path) -> Mapping[str, Mapping[str, Mapping[str, object]]]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _inputs(action: Mapping[str, Mapping[str, Mapping[str, object]]]) -> str:
    rows = [
        (f"`{name}`", str(given.get("description", "")), f"`{given['default']}`" if given.get("default") else "–")
        for name, given in action.get("inputs", {}).items()
    ]
    return table(("input", "meaning", "default"), rows) if rows else "*`action.yml` is not there yet.*"


def _outputs(action: Mapping[str, Mapping[str, Mapping[str, object]]]) -> str:
    rows = [(f"`{name}`", str(given.get("description", ""))) for name, given in action.get("outputs", {}).items()]
    return table(("output", "meaning"), rows) if rows else "*`action.yml` is not there yet.*"
