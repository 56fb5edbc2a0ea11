"""What one run, or one comment, asks for × the policy → a `Denial` with the numbers, or the rule by which a second person must agree."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from dispatcher.applies import At, hours_approvals, hours_limits, image_rules, nodes_approvals, nodes_limits, time_limits
from dispatcher.clouds import CloudProfile
from dispatcher.denial import Denial, by
from dispatcher.jobparts import array_tasks, at_once
from dispatcher.phrases import duration, number, plural
from dispatcher.policy import Policy
from dispatcher.record import Resources
from dispatcher.registry import Profile
from dispatcher.slurmprofile import SlurmProfile
from dispatcher.untrusted import code

_SMALLER = "Ask for less, or have the limit changed on the default branch."


@dataclass(frozen=True)
class Wanted:
    """What one run asks for. `lineage` is the profile and what it extends (`ResolvedProfile.lineage`), `images` those in which it runs.

    `unlimited`: there is no time limit, whatever `resources.seconds` says.
    """

    lineage: tuple[str, ...]
    recipe: str
    resources: Resources
    images: tuple[str, ...] = ()
    unlimited: bool = False

    @property
    def endless(self) -> bool:
        """Whether nothing bounds how long it runs."""
        return self.unlimited or self.resources.seconds <= 0

    @property
    def rules(self) -> tuple[tuple[str, ...], str]:
        """What names the rules that apply."""
        return self.lineage, self.recipe


def within(wanted: Wanted, policy: Policy) -> Denial | None:
    """The first limit that the run exceeds, or the rule that does not admit its image; None when it may run."""
    return limit_exceeded(wanted, policy) or image_refused(wanted, policy)


def limit_exceeded(wanted: Wanted, policy: Policy) -> Denial | None:
    """The first of `limits` that the run exceeds. Without a time limit it exceeds every limit on time and, with GPUs, on GPU-hours."""
    asked = wanted.resources
    for nodes in nodes_limits(policy, *wanted.rules):
        if asked.most_nodes > nodes.rule:
            words = f"**{plural(asked.most_nodes, 'node')} are too many.** At most {plural(nodes.rule, 'node')} {by(nodes.where)}."
            return Denial("too-many-nodes", words, _SMALLER, nodes.where)
    for seconds in time_limits(policy, *wanted.rules):
        if wanted.endless:
            return _endless(seconds)
        if asked.seconds > seconds.rule:
            length, most = duration(asked.seconds), duration(seconds.rule)
            if length == most:  # what differs by less than a minute
                length, most = f"{asked.seconds:,} s", f"{seconds.rule:,} s"
            words = f"**A time limit of {length} is too long.** At most {most} {by(seconds.where)}."
            return Denial("too-long", words, f"Set a shorter `time`. {_SMALLER}", seconds.where)
    for hours in hours_limits(policy, *wanted.rules):
        if _has_gpus(asked) and wanted.endless:
            return _endless(hours)
        if asked.gpu_hours > hours.rule:
            words = f"**{hours_words(asked)} are too many.** At most {number(hours.rule)} GPU-hours {by(hours.where)}."
            return Denial("too-many-gpu-hours", words, _SMALLER, hours.where)
    return None


def image_refused(wanted: Wanted, policy: Policy) -> Denial | None:
    """The rule of `images` that does not admit one of the run's images."""
    for image, patterns in product(wanted.images, image_rules(policy, *wanted.rules)):
        if not any(_image_meets(image, pattern) for pattern in patterns.rule):
            known = ", ".join(code(pattern) for pattern in patterns.rule) or "none"
            words = f"**The image {code(image)} may not run.** Allowed are: {known} {by(patterns.where)}."
            return Denial("image-not-allowed", words, "Use one of these, or have the list changed on the default branch.", patterns.where)
    return None


def approval_needed(wanted: Wanted, policy: Policy) -> str | None:
    """The rule by which a second person must agree; None when nobody has to."""
    asked = wanted.resources
    for nodes in nodes_approvals(policy, *wanted.rules):
        if asked.most_nodes > nodes.rule:
            return nodes.where
    for hours in hours_approvals(policy, *wanted.rules):
        if asked.gpu_hours > hours.rule or (_has_gpus(asked) and wanted.endless):
            return hours.where
    return None


def too_many(runs: int, commands: int, policy: Policy) -> Denial | None:
    """More than one comment may ask for: `runs` that one command becomes, `commands` in the comment."""
    most = policy.most
    if commands > most.commands:
        words = f"**{commands:,} commands are too many.** One comment may have {most.commands:,} {by('most.commands')}."
        return Denial("too-many-commands", words, "Nothing was started. Write several comments.", "most.commands")
    if runs > most.runs:
        words = f"**{runs:,} runs are too many.** One command may become {most.runs:,} {by('most.runs')}."
        return Denial("too-many-runs", words, "Nothing was started. Give fewer profiles or values.", "most.runs")
    return None


def hours_words(asked: Resources) -> str:
    """`64 GPU-hours (2 nodes × 8 GPUs × 4h)`."""
    parts = f"{plural(asked.nodes, 'node')} × {plural(asked.gpus_per_node, 'GPU')} × {duration(asked.seconds)}"
    parts = f"{plural(asked.tasks, 'task')} × {parts}" if asked.tasks > 1 else parts
    parts = f"{asked.jobs} jobs × {parts}" if asked.jobs > 1 else parts
    return f"{number(asked.gpu_hours)} GPU-hours ({parts})"


def _endless(at: At[int] | At[float]) -> Denial:
    words = f"**A run without time limit may not be started.** There is a limit {by(at.where)}."
    return Denial("no-time-limit", words, "Give the profile a `time`.", at.where)


def _has_gpus(asked: Resources) -> bool:
    return asked.nodes * asked.gpus_per_node > 0


def _image_meets(image: str, pattern: str) -> bool:
    """`*` stands for anything, slashes included; a path that climbs (`/ok/../other`) only meets a pattern that names it."""
    if pattern in ("*", image):
        return True
    climbs = ".." in image.split("/")
    return not climbs and matches(image, (pattern,))


def matches(text: str, patterns: Sequence[str] | Iterable[str]) -> bool:
    """Whether the whole text meets one of the patterns, in which `*` stands for anything."""
    return any(re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), text) for pattern in patterns)


# --------------------------------------------------------------------------- a profile in numbers

# One entry of --gres or of --gpus…: https://slurm.schedmd.com/sbatch.html#OPT_gres (`name[[:type]:count]`; a missing count is one).
_GPU_GRES = re.compile(r"(?:gres[/:])?gpu(?:[:=/](?P<type>[A-Za-z_.-][A-Za-z0-9_.-]*))?(?:[:=](?P<count>[0-9]{1,9}))?")
_GPU_COUNT = re.compile(r"(?:[A-Za-z_.-][A-Za-z0-9_.-]*[:=])?(?P<count>[0-9]{1,9})")


def asked_for(profile: Profile, partition: str = "") -> Resources:
    """What a profile, with the overrides in it, asks of the scheduler, in whichever of Slurm's ways; of several the greatest counts."""
    nodes = profile.machines if isinstance(profile, CloudProfile) else profile.nodes
    gpus = -(-profile.gpu_count // nodes)  # rounded up where nodes differ
    if isinstance(profile, SlurmProfile) and profile.components:
        parts = [asked_for(component, partition) for component in profile.components]
        nodes = sum(part.nodes for part in parts)
        gpus = -(-sum(part.nodes * part.gpus_per_node for part in parts) // nodes)  # rounded up where components differ
    elif isinstance(profile, SlurmProfile):
        more = {name.replace("_", "-"): str(value) for name, value in profile.additional_parameters.items()}
        # `4`, `2-8`, `1,3,5`
        nodes = max([nodes, *(int(count) for count in re.findall(r"[0-9]{1,9}", more.get("nodes", "")))])
        tasks = max(profile.ntasks_per_node, _count(more, "ntasks-per-node"), -(-_count(more, "ntasks") // nodes))
        gpus = max(
            gpus,
            _in_gres(profile.gres or ""),
            _in_gres(more.get("gres", "")),
            _count(more, "gpus-per-node"),
            -(-_count(more, "gpus") // nodes),
            max(profile.gpus_per_task or 0, _count(more, "gpus-per-task")) * tasks,
            _count(more, "gpus-per-socket") * max(1, _count(more, "sockets-per-node")),
        )
        if profile.array:
            tasks, together = len(array_tasks(profile.array)), at_once(profile.array)
            return Resources(nodes=nodes, gpus_per_node=gpus, seconds=profile.seconds, partition=partition, tasks=tasks, at_once=together)
    return Resources(nodes=nodes, gpus_per_node=gpus, seconds=profile.seconds, partition=partition)


def _in_gres(gres: str) -> int:
    """`gpu:a100:8,shard:1` → 8."""
    return sum(int(found["count"] or 1) for part in gres.split(",") if (found := _GPU_GRES.fullmatch(part)))


def _count(options: Mapping[str, str], name: str) -> int:
    """The number in an option: `8`, `a100:8`, `a100:4,h100:4`; 0 where it is not given. sbatch takes abbreviations (`gpus-per-n`) too."""
    given = [value for key, value in options.items() if key == name or (name.startswith(key) and "-per-" in key)]
    counts = [sum(int(found["count"]) for part in value.split(",") if (found := _GPU_COUNT.fullmatch(part))) for value in given]
    return max(counts, default=0)


def images_of(profile: Profile) -> tuple[str, ...]:
    """Every image that a profile's jobs run in; a component of a heterogeneous one may have its own."""
    image = image_of(profile)
    return profile.images if isinstance(profile, SlurmProfile) else (image,) if image else ()


def image_of(profile: Profile) -> str | None:
    """The image that a profile's jobs run in; None where they run in none."""
    if isinstance(profile, CloudProfile):
        return profile.image
    return profile.container_image if isinstance(profile, SlurmProfile) else None
