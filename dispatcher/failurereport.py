"""Why a run failed → the lines of its comment and check, and annotations on the lines of the pull request that a traceback names.

What a log said is shown as code or with its mentions and markup broken; a link goes only to a file that the commit has.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from dispatcher.answer import Voice
from dispatcher.causes import BLAME_WORDS, Kind
from dispatcher.denial import REASONS
from dispatcher.failure import Failure, Place
from dispatcher.ports import Annotation
from dispatcher.record import RunRecord
from dispatcher.untrusted import code, printable

# So many lines before and after the one that says why stand in a comment, where the log's end does not show it.
_BEFORE, _AFTER = 12, 6
_NOBODY = frozenset({Kind.CANCELLED, Kind.LOST, Kind.DEPENDENCY})


def title_of(failure: Failure) -> str:
    """What happened, as it goes on behind a run's name; empty where the state's own words say it better."""
    if failure.cause == "exception":
        return f"failed with {failure.error}" if failure.error else ""
    return failure.words.title


def failure_lines(record: RunRecord, voice: Voice) -> list[str]:
    """Markdown: the evidence and where it stands, then whom it blames. Empty for a run without a failure."""
    failure = record.failure
    if failure is None:
        return []
    lines: list[str] = []
    if failure.evidence and not (record.reason and record.reason in failure.evidence):
        where = f" in {_link(record, failure.places[-1], voice)}" if failure.places else ""
        rank = f", on rank {failure.rank}" if failure.rank is not None else ""
        lines += [f"{code(failure.evidence, 300, in_table=False)}{where}{rank}", ""]
    if (failure.kind not in _NOBODY or failure.words.blames != "unclear") and failure.kind is not Kind.UNEXPLAINED:
        lines += [BLAME_WORDS[failure.words.blames], ""]
    again = next_attempt_words(record)
    return [*lines, *_no_further_job(record), *([again, ""] if again else [])]


def _no_further_job(record: RunRecord) -> list[str]:
    """Why a chain ends with this job."""
    if not record.not_continued:
        return []
    return [f"No further job continues it ({code(record.not_continued)}). {REASONS.get(record.not_continued, '')}".rstrip(), ""]


def next_attempt_words(record: RunRecord) -> str:
    """What comes after a failure of the machine by itself, in Markdown; empty where there is nothing to say about that."""
    if record.followed_by:
        number = (record.repeats.number if record.repeats else 0) + 2
        behind = ", and with it the stages that come after it" if record.stage else ""
        return f"It is run again by itself: attempt {number} is run {code(record.followed_by[:8])}{behind}."
    if record.retry_owed:
        return f"It is run again by itself as soon as {'its pipeline has ended and ' if record.stage else ''}that can be submitted."
    if record.not_repeated == "attempts-used" and record.repeats:
        return f"It was {record.repeats.words}, and is not run again by itself."
    if not record.not_repeated:
        return ""
    return f"It is not run again by itself ({code(record.not_repeated)}). {REASONS.get(record.not_repeated, '')}".rstrip()


def excerpt_title(record: RunRecord) -> str:
    """Where the lines of `excerpt` stand."""
    failure = record.failure
    of_slurm = failure is not None and failure.around and failure.said_by != "log"
    return "What Slurm said, in the batch script's log" if of_slurm else "Around the error"


def excerpt(record: RunRecord, tail: str, shown: int) -> str:
    """The lines around the one that says why; empty where it is among the last `shown` lines of the log, or not there.

    What Slurm said in the batch script's log is never in the one that is shown.
    """
    failure = record.failure
    if failure is not None and failure.around:
        return failure.around
    if failure is None or failure.said_by != "log" or not failure.evidence:
        return ""
    lines = tail.rstrip().splitlines()
    wanted = failure.evidence.rstrip("…")[:120]
    number = next((at for at in range(len(lines) - 1, -1, -1) if wanted in " ".join(printable(lines[at]).split())), None)
    if number is None or number >= len(lines) - shown:
        return ""
    return "\n".join(lines[max(0, number - _BEFORE) : number + _AFTER])


def line_annotations(record: RunRecord) -> tuple[Annotation, ...]:
    """The line that raised gets the exception, the lines that led there a notice; at most as many as a record holds."""
    failure = record.failure
    if failure is None or not failure.places:
        return ()
    *callers, raising = failure.places
    told = re.sub(r"@(?=\w)", "@\u200b", printable(failure.evidence))
    rank = f" (rank {failure.rank})" if failure.rank is not None else ""
    found = [Annotation(raising.path, raising.line, "failure", f"{told}{rank}")]
    seen = {(raising.path, raising.line)}
    for place in reversed(callers):
        if (place.path, place.line) not in seen:
            seen.add((place.path, place.line))
            words = f"Called from here on the way to {raising.path}:{raising.line}, where the job failed."
            found.append(Annotation(place.path, place.line, "notice", words))
    return tuple(found)


def _link(record: RunRecord, place: Place, voice: Voice) -> str:
    """A file and a line, linked at the run's commit where people can follow a link."""
    name = code(f"{place.path}:{place.line}")
    if voice.at_terminal:
        return name
    return f"[{name}]({voice.server_url}/{record.target.repository}/blob/{record.sha}/{quote(place.path)}#L{place.line})"
