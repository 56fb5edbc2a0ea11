"""A no: why, by which rule, and what would help; and the list of every reason there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

REASONS: Mapping[str, str] = {
    "not-a-collaborator": "GitHub does not list the account as a collaborator, or did not answer.",
    "role-too-low": "The account's role on the repository is not among those that the rule admits.",
    "denied-user": "The account stands under `deny`.",
    "rerun-by-another": "Somebody else had the command's old workflow run done once more, which would be in its author's name.",
    "pull-gone": "The pull request cannot be read, or GitHub does not say which one it is.",
    "pull-closed": "The pull request is closed.",
    "fork-off": "The policy runs nothing from forks.",
    "fork-needs-sha": "For a fork the command must carry the head's full SHA: the pusher could change the head after the comment.",
    "sha-mismatch": "The SHA in the command is not the head.",
    "head-moved": "New commits arrived since it was asked for.",
    "unknown-ref": "The branch or tag does not exist in this repository.",
    "no-profile": "No profile is named, and the policy has no default.",
    "no-recipe": "No recipe is named, and the policy has no default.",
    "unknown-recipe": "The policy has no such recipe.",
    "override-not-allowed": "The policy does not allow the override, or not this value.",
    "approval-needed": "A second person must agree, and there is no pull request in which somebody could.",
    "own-request": "A second person must agree, and nobody is a second person to themselves.",
    "override-off": "The policy has no exceptions from its gate.",
    "unknown-gate": "There is no gate of that name.",
    "too-many-nodes": "The run asks for more nodes than a limit of the policy.",
    "too-long": "The run's time limit is longer than a limit of the policy.",
    "too-many-gpu-hours": "Nodes × GPUs × time limit is more than a limit of the policy.",
    "no-time-limit": "The run has no time limit, and the policy limits or counts its time.",
    "image-not-allowed": "The policy does not allow the container image.",
    "repository-not-allowed": "The policy does not name the repository that the configuration mounts.",
    "too-many-runs": "The command becomes more runs than the policy allows in one.",
    "too-many-commands": "The comment has more commands than the policy allows in one.",
    "attempts-used": "The run has been run again by itself as often as the policy's `retries` allow.",
    "jobs-used": "The run has had as many jobs as its recipe's `chain` has.",
    "nothing-saved": "The job has saved nothing where its recipe's `chain` says: the next one would do the same again.",
    "chain-given-up": "The run that started its job was given up, and with that its chain: only that run goes on in further jobs.",
    "next-job-refused": "The scheduler refused the run's next job.",
    "record-changed": "What the ledger says of a run that would be run again by itself is not what was granted: jobs can write there.",
    "stage-failed": "Another stage of the pipeline did not begin, or went wrong by itself: the pipeline would not pass.",
    "local-stage": "A stage of the pipeline runs on the machine of whoever asked for it: nobody would be there to go on with it.",
    "asked-again": "Somebody has had it run again already.",
    "pipeline-changed": "The pipeline's stages are not, or no longer, as its runs were: some of it is not run again by itself.",
    "not-on-branch": "Its commit is not, or no longer, on the default branch or the schedule's `ref`: it is not run again by itself.",
    "not-scheduled": "The policy has no such schedule any more, or it runs something else.",
    "not-required": "The policy no longer wants this run in the merge queue.",
    "queue-entry-gone": "The merge queue no longer has the commit that the run was for.",
    "budget-exceeded": "With this run, more GPU-hours would be used in the month than a budget of the policy has.",
}


@dataclass(frozen=True)
class Denial:
    """A no, in Markdown for the public: `reason` is a key of REASONS, `words` say what is not possible and by which rule.

    `rule` is that rule's path in the policy (`profiles.large.allow`); empty where none says no.
    """

    reason: str
    words: str
    next_step: str
    rule: str = ""


def by(rule: str) -> str:
    """The rule in words, for the end of a sentence."""
    return f"(rule `{rule}` in `.github/dispatch.yml`)"
