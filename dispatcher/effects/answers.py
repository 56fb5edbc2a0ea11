"""Answers of `cluster.sh` → the values of `ports.py`, parsed strictly; and a submission → the bytes that it sends."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator

from dispatcher.effects.conversation import Answer, check_name, words_of
from dispatcher.errors import ClusterError
from dispatcher.manifest import is_inside, parse_manifest
from dispatcher.ports import ActiveRun, CommandOutput, FileEntry, RunFiles, Submission

KEY = r"[0-9a-f]{8,64}"
JOB = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
MONTH = r"\d{4}-(0[1-9]|1[0-2])"
USAGE_LINE = r"(?=[ -~]{1,1999}\Z)[^\"'`]*"
MANIFEST_CAP = 64 << 20
JOURNAL_CAP = 4 << 20
RESERVED = frozenset(
    ["code", "logs", "job", "exit", "answer", "words", "tags", "listed", "held", "dropped", "usage", "record.json", "job.sbatch", "env"]
)
RESERVED |= {"jobs", "started", "begun"}
HOLDERS = ("claim.", "turn.", "commit.")


def control_tar(submission: Submission) -> bytes:
    """Everything small that a submission consists of, as one tar for the run's folder."""
    members: list[tuple[str, bytes, int]] = [
        ("record.json", submission.record.encode(), 0o600),
        ("job.sbatch", submission.script.encode(), 0o700),
        ("env", submission.env_file.encode(), 0o600),
    ]
    if submission.usage:
        members.append(("usage", f"{check_usage(submission.usage)}\n".encode(), 0o600))
    upload = submission.upload
    if upload is not None and upload.base_digest is None:
        manifest = submission.manifest.encode("utf-8", "surrogateescape")
        members.append((".files.gz", gzip.compress(manifest, 6, mtime=0), 0o600))
    elif upload is not None:
        paths = upload.delete
        if not all(is_inside(path) for path in paths):
            raise ValueError("a path to delete leaves the code's folder")
        members.append((".delete", b"".join(b"./" + path.encode("utf-8", "surrogateescape") + b"\0" for path in paths), 0o600))
    for file in submission.files:
        first = file.path.split("/")[0]
        if not is_inside(file.path) or first in RESERVED or first.startswith((".", *HOLDERS)):
            raise ValueError(f"{file.path!r} is not a name for a file of a run")
        members.append((file.path, file.content, file.mode))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, content, mode in members:
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def base_manifest(data: bytes | None) -> tuple[FileEntry, ...] | None:
    """The base's manifest as it came; None when it cannot be read, and then the package goes whole."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        text = unpacker.decompress(data or b"", MANIFEST_CAP)
    except zlib.error:
        return None
    if not unpacker.eof:
        return None
    return parse_manifest(text.decode("utf-8", "surrogateescape"))


def active_runs(answer: Answer, now: int) -> Iterator[ActiveRun]:
    """A sweep's entries of active/, with the sizes of their logs; `now` is the login node's clock, seconds since the epoch."""
    sizes = {}
    for line in answer.text("sizes").splitlines():
        size, _, path = line.partition(" ")
        parts = path.split("/")
        if size.isdigit() and len(parts) > 2:
            sizes[parts[1]] = int(size)
    for line in answer.text("runs").splitlines():
        key, job, since, code, alive, *reported = line.split(" ", 5)
        if not since.isdigit():
            since = str(now)
        yield ActiveRun(
            run_key=check_name(key, KEY, "run key"),
            job_id="" if job == "-" else job_id(job),
            reported="" if not reported or reported[0] == "-" else words_of(reported[0], 100),
            age_seconds=max(0, now - int(since)),
            log_size=sizes.get(key, 0),
            exit_file="" if code == "-" else words_of(code, 20),
            alive=alive == "yes",
        )


def queued_keys(answer: Answer) -> tuple[str, ...]:
    """A sweep's queue, in its order."""
    return tuple(check_name(key, KEY, "run key") for key in answer.text("queued").split())


def records_of(answer: Answer, section: str) -> tuple[str, ...]:
    """Ledger texts of records, one a section."""
    return tuple(record.decode("utf-8", "replace") for record in answer.sections.get(section, []))


def check_usage(line: str) -> str:
    """A line for the usage journal: printable ASCII without quotes, shorter than 2000 characters, a month first.

    Raises:
        ValueError: it is not one.
    """
    check_name(line.partition(" ")[0], MONTH, "month")
    return check_name(line, USAGE_LINE, "usage line")


def journal(answer: Answer) -> str:
    """A month's journal; where it was cut off at the cap, without the line whose beginning is missing."""
    text = answer.text("usage")
    return text.partition("\n")[2] if len(text) >= JOURNAL_CAP else text


def command_output(answer: Answer, name: str) -> CommandOutput:
    """One command's streams and status; a command that was not run has said nothing, successfully."""
    status = answer.text(f"{name}.status")
    return CommandOutput(int(status) if status.isdigit() else 0, answer.text(name), answer.text(f"{name}.words"))


def run_files(answer: Answer, log_cap: int, results_cap: int) -> RunFiles | None:
    """The answer to `fetch`; None when the ledger does not know the run."""
    match answer.words:
        case ["unknown"]:
            return None
        case ["known", offset, size, length, job] if offset.isdigit() and size.isdigit():
            return RunFiles(
                record=answer.text("record"),
                log=(answer.data("log") or b"")[:log_cap],
                log_offset=int(offset),
                log_size=int(size),
                results=answer.data("results"),
                results_too_big=length.isdigit() and int(length) > abs(results_cap),
                job_id="" if job == "-" else job_id(job),
                given_up=words_of(answer.text("left"), 200),
            )
    raise unclear("fetch", answer)


def job_id(text: str) -> str:
    """A job id as Slurm, the local runner or an API gives it, checked."""
    try:
        return check_name(text, JOB, "job id")
    except ValueError:
        raise ClusterError("cluster.bad-answer", f"The ledger's job id is not one: {words_of(text, 60)!r}.") from None


def unclear(verb: str, answer: Answer) -> ClusterError:
    """The error for an answer that no version of the program gives."""
    return ClusterError("cluster.bad-answer", f"The answer to `{verb}` makes no sense: {words_of(' '.join(answer.words), 200)!r}.")
