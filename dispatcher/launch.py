"""A plan ↔ the file `configs/launch.json` beside a run that an API starts: whoever starts it later (the queue) needs nothing else.

And the marks that such a job leaves in its log, because nothing but the log comes back from it.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dispatcher.errors import ClusterError
from dispatcher.jobplan import JobPlan
from dispatcher.packing import package_spec
from dispatcher.ports import AnySpec, HybridSpec, NothingSpec, PackageSpec, PatternSpec

LAUNCH_FILE = "configs/launch.json"
RESULTS_MARK = "dispatch-results:"
"""What the job prints last: this word at a line's beginning, then its results file in base64 (`results_in`)."""
RESULTS_LIMIT = 64 * 1024

_SPECS: Mapping[str, type[PackageSpec] | type[PatternSpec] | type[HybridSpec] | type[NothingSpec]] = {
    spec.kind: spec for spec in (PackageSpec, PatternSpec, HybridSpec, NothingSpec)
}


@dataclass(frozen=True)
class Launch:
    """What has to be started: the job as `JobPlan.for_compiler()` has it, and which files of which commit travel."""

    job: Mapping[str, Any]
    sha: str
    spec: AnySpec

    @property
    def packs(self) -> bool:
        """Whether any code travels."""
        return bool(self.job["cloud"]["packs"])


def to_json(job: JobPlan) -> str:
    """The file's text."""
    spec = _encoded(package_spec(job.recipe, job.profile))
    return json.dumps({"job": job.for_compiler(), "sha": job.grant.sha, "spec": spec}, indent=1)


def parse(text: str) -> Launch:
    """The file's text → what has to be started. It lies in a folder that others can write to, so it is read strictly.

    Raises:
        ClusterError: `cluster.bad-record`.
    """
    try:
        given = json.loads(text)
        spec = _decoded(given["spec"])
        if not (
            isinstance(given["job"], dict)
            and isinstance(given["job"]["cloud"]["packs"], bool)
            and re.fullmatch(r"[0-9a-f]{40,64}", given["sha"])
        ):
            raise ValueError("job or sha")
        return Launch(given["job"], given["sha"], spec)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        words = f"What is kept of a run that is to be started cannot be read ({type(error).__name__})."
        raise ClusterError("cluster.bad-record", words) from None


def _encoded(spec: AnySpec) -> dict[str, Any]:
    fields = asdict(spec)
    if isinstance(spec, HybridSpec):
        fields["parts"] = [[name, _encoded(part)] for name, part in spec.parts]
    return {"kind": spec.kind, **fields}


def _decoded(given: Mapping[str, Any]) -> AnySpec:
    fields = {name: value for name, value in given.items() if name != "kind"}
    if given["kind"] == HybridSpec.kind:
        fields["parts"] = [(name, _decoded(part)) for name, part in given["parts"]]
    spec: AnySpec = TypeAdapter(_SPECS[given["kind"]]).validate_python(fields)
    return spec


def parse_environment(text: str) -> dict[str, str]:
    """`JobPlan.environment()`'s text → the variables.

    Raises:
        ClusterError: `cluster.bad-record` for anything else.
    """
    try:
        words = shlex.split(text)
    except ValueError:
        words = [""]
    pairs = [word.partition("=") for word in words[1::2]]
    if len(words) % 2 or set(words[::2]) - {"export"} or not all(re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) for name, _, _ in pairs):
        raise ClusterError("cluster.bad-record", "What is kept of a run's environment cannot be read.")
    return {name: value for name, _, value in pairs}


def results_in(log: bytes) -> bytes | None:
    """The results file that a job printed last, None when it printed none. What is there and cannot be read is an empty file."""
    found = re.findall(rb"(?m)^(?:\[[^\]\n]{0,80}\]:? ?)?" + RESULTS_MARK.encode() + rb" *([A-Za-z0-9+/=]*)\r?$", log)
    if not found:
        return None
    try:
        return base64.b64decode(found[-1], validate=True)
    except ValueError:
        return b""


def without_marks(log: bytes) -> bytes:
    """The log as people want to read it."""
    return re.sub(rb"(?m)^(?:\[[^\]\n]{0,80}\]:? ?)?" + RESULTS_MARK.encode() + rb"[^\n]*\n?", b"", log)
