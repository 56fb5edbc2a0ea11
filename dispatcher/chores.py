"""What was set up → what only people can do: an environment, its secret and variables, labels, the rule that requires the gate."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.ports import Label
from dispatcher.scaffold import Setup

LABEL_COLOR = "1d76db"
# As the templates name them.
SECRET_KEY, SECRET_HOSTS, APP_ID, APP_KEY = "CLUSTER_SSH_KEY", "CLUSTER_KNOWN_HOSTS", "DISPATCH_APP_ID", "DISPATCH_APP_KEY"
ENVIRONMENT = "cluster"


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
        f'gh label create "{label.name}" --color {label.color} --force{at} \\\n  --description "{label.description}"' for label in labels
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
