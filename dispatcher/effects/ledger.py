"""The `Cluster` port over `cluster.sh`: claims, submissions and looks at runs → requests, and answers → values.

Everything that comes back is untrusted: parsed strictly, capped, and never used as a path or a command here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from dispatcher.effects.answers import (
    KEY,
    MONTH,
    active_runs,
    base_manifest,
    check_usage,
    command_output,
    control_tar,
    job_id,
    journal,
    queued_keys,
    records_of,
    run_files,
    unclear,
)
from dispatcher.effects.channel import Channel, LocalShell
from dispatcher.effects.conversation import WINDOW, Answer, check_name, checked_names, command, words_of
from dispatcher.effects.line import CLAIM_SECONDS, LOOK_SECONDS, SUBMIT_SECONDS, Line
from dispatcher.errors import ClusterError, DispatchError
from dispatcher.jobparts import parts_of
from dispatcher.manifest import is_inside
from dispatcher.ports import (
    AlreadySubmitted,
    ClaimAnswer,
    Claimed,
    ClaimRequest,
    CommandOutput,
    GivenUp,
    Held,
    InProgress,
    NothingSaved,
    Part,
    Probe,
    Refused,
    RunFiles,
    Standing,
    Submission,
    Submitted,
    Sweep,
)

DIGEST = r"[0-9a-f]{64}"
NAME = r"[0-9a-z][0-9a-z-]{0,127}"
PART = r"0|[1-9][0-9]{0,9}"

HISTORY = r"[0-9a-f]{32}"
HISTORY_CAP = 1 << 20
LINE_CAP = 64 * 1024

CUT = ("ssh.cut", "cluster.cut")
BEYOND_ANY_LOG = 1 << 60
"""An offset at which there is nothing to read."""
MISSING_CAP = 25
"""Jobs that neither squeue nor sacct knows and that scontrol is asked about in one sweep: a process each on the login node."""


def open_local(environment: Mapping[str, str]) -> Channel:
    """The remote program on this machine; of `environment` it and its jobs see only `channel.INHERITED`."""
    return LocalShell(command(), environment)


class LedgerCluster:
    """One cluster's scheduler and ledger. `connect` is called once, at the first request or by `start()`; job_dir is absolute.

    `patience` is how many seconds a claim waits for somebody else who is submitting the same run key.

    Raises `SshError` from `connect` and `ClusterError` with the far side's reasons.
    """

    def __init__(self, connect: Callable[[], Channel], job_dir: str, scheduler: str, patience: int = 20) -> None:
        if not job_dir.startswith("/") or "\n" in job_dir:
            raise ClusterError("cluster.job-dir", f"`{words_of(job_dir, 200)}` is not an absolute path.")
        self._line = Line(connect, scheduler, job_dir)
        self._scheduler, self._patience = scheduler, patience
        self._base_digest: str | None = None
        self._claimed: ClaimRequest | None = None

    def start(self) -> None:
        """Begins to connect, beside whatever else there is to do; failures are raised by the first request."""
        self._line.start()

    # ------------------------------------------------------------------ submitting

    def claim(self, request: ClaimRequest) -> ClaimAnswer:
        """As in `ports.Cluster`."""
        answer = self._claim(request)
        match answer.words:
            case ["claimed", resumed, "have", _]:
                return Claimed(resumed == "yes", True, None)
            case ["claimed", resumed, "need", digest]:
                base = base_manifest(answer.data("base")) if digest != "-" else None
                self._base_digest = digest if base is not None else None
                return Claimed(resumed == "yes", False, base, self._base_digest)
        return somebodys(answer)

    def _claim(self, request: ClaimRequest) -> Answer:
        answer = self._line.request(
            "claim",
            check_name(request.run_key, KEY, "run key"),
            check_name(request.digest, DIGEST, "digest"),
            check_name(request.package_group, NAME, "package group"),
            checked_names(request.tags, NAME, "tag"),
            str(self._patience),
            timeout=CLAIM_SECONDS,
        )
        self._claimed = request
        return answer

    def submit(self, submission: Submission) -> Submitted | Held | Refused:
        """As in `ports.Cluster`. What the archive raises while it is made is raised here, and nothing is submitted.

        A connection that is cut meanwhile is opened once more, to ask what became of it, and to send everything again if nothing did.
        """
        try:
            return self._submit(submission)
        except DispatchError as cut:
            if cut.code not in CUT or self._claimed is None or self._claimed.run_key != submission.run_key:
                raise
            return self._submit_again(submission, self._claimed, cut)

    def _submit_again(self, submission: Submission, claimed: ClaimRequest, cut: DispatchError) -> Submitted | Held | Refused:
        self._line.start_over()
        try:
            answer = self.claim(claimed)
        except DispatchError:
            raise cut from None
        if isinstance(answer, AlreadySubmitted):
            return Submitted(answer.job_id) if answer.job_id else Held()
        base = submission.upload.base_digest if submission.upload else None
        if isinstance(answer, InProgress) or (base not in (None, answer.base_digest) and not answer.has_package):
            raise cut
        return self._submit(replace(submission, upload=None) if answer.has_package else submission)

    def _submit(self, submission: Submission) -> Submitted | Held | Refused:
        upload = submission.upload
        mode = "have" if upload is None else "delta" if upload.base_digest else "whole"
        if upload is not None and upload.base_digest not in (None, self._base_digest):
            raise ValueError("the difference is to another base than the claim named")
        control = control_tar(submission)
        talk = self._line.talk
        talk.ask("submit", check_name(submission.run_key, KEY, "run key"), mode, str(len(control)))
        talk.send(control)
        if upload is not None:
            talk.stream(upload.chunks())
        talk.send(b"hold\n" if submission.hold else b"go\n")
        answer = talk.answer(SUBMIT_SECONDS)
        return Held() if answer.words == ["held"] else _outcome("submit", answer)

    def abandon(self, run_key: str) -> None:
        """As in `ports.Cluster`."""
        self._line.request("abandon", check_name(run_key, KEY, "run key"))

    # ------------------------------------------------------------------ the queue

    def release(self, run_key: str) -> Submitted | Refused | None:
        """As in `ports.Cluster`. None also when our admission lock was taken from us: what was decided under it no longer holds.

        A cut is not mended here, because the lock is gone with the connection: the next sweep finds the job, or the run in the queue.
        """
        answer = self._line.request("release", check_name(run_key, KEY, "run key"), timeout=SUBMIT_SECONDS)
        return None if answer.words in (["gone"], ["held"]) else _outcome("release", answer)

    def go_on(self, run_key: str, ended: str, saved: str) -> Submitted | Refused | NothingSaved | None:
        """As in `ports.Cluster`. A cut is not mended here: the next look finds the job, or asks again."""
        if not is_inside(saved):
            raise ValueError(f"the path {saved!r} leaves the run's folder")
        answer = self._line.request("go_on", check_name(run_key, KEY, "run key"), job_id(ended), saved, timeout=SUBMIT_SECONDS)
        match answer.words:
            case ["gone"]:
                return None
            case ["unchanged"]:
                return NothingSaved()
        return _outcome("go_on", answer)

    def drop(self, run_key: str) -> bool:
        """As in `ports.Cluster`."""
        answer = self._line.request("drop", check_name(run_key, KEY, "run key"))
        match answer.words:
            case ["dropped"]:
                return True
            case ["gone"] | ["submitted", _]:
                return False
        raise unclear("drop", answer)

    def lock(self) -> bool:
        """As in `ports.Cluster`; waits for `patience` seconds."""
        answer = self._line.request("lock", str(self._patience), timeout=CLAIM_SECONDS)
        if answer.words not in (["locked"], ["busy"]):
            raise unclear("lock", answer)
        return answer.words == ["locked"]

    def unlock(self) -> None:
        """As in `ports.Cluster`."""
        self._line.request("unlock")

    def standing(self) -> Standing:
        """As in `ports.Cluster`: one round trip. Of the queue only the first thousand; `cluster.failed` when thousands are active."""
        answer = self._line.request("standing")
        return Standing(records_of(answer, "active"), records_of(answer, "queued"))

    def usage(self, month: str) -> str:
        """As in `ports.Cluster`; of a longer journal the newest whole lines."""
        return journal(self._line.request("usage", check_name(month, MONTH, "month")))

    def account(self, line: str) -> None:
        """As in `ports.Cluster`. `ValueError` for a line that is not printable ASCII without quotes, shorter than 2000 characters."""
        self._line.request("account", check_usage(line))

    def adopt(self, run_key: str, other: str, record: str) -> str | None:
        """As in `ports.Cluster`."""
        keys = (check_name(run_key, KEY, "run key"), check_name(other, KEY, "run key"))
        answer = self._line.give("adopt", *keys, data=record.encode())
        match answer.words:
            case ["submitted", job]:
                return job_id(job)
            case ["gone"]:
                return None
        raise unclear("adopt", answer)

    def history(self, name: str) -> str:
        """As in `ports.Cluster`; of a longer one the newest whole lines."""
        text = self._line.request("history", check_name(name, HISTORY, "history")).text("history")
        return text.partition("\n")[2] if len(text.encode()) >= HISTORY_CAP else text

    def remember(self, name: str, line: str) -> None:
        """As in `ports.Cluster`. `ValueError` for a line that is none, or too long."""
        data = line.encode() + b"\n"
        if b"\n" in data[:-1] or len(data) > LINE_CAP:
            raise ValueError("what is to be remembered is not one short line")
        self._line.give("remember", check_name(name, HISTORY, "history"), data=data)

    # ------------------------------------------------------------------ looking

    def sweep(self) -> Sweep:
        """As in `ports.Cluster`: one round trip, a second one only for jobs that neither squeue nor sacct knows."""
        answer = self._line.request("sweep")
        if len(answer.words) != 1 or not answer.words[0].isdigit():
            raise unclear("sweep", answer)
        now = int(answer.words[0])
        runs = tuple(active_runs(answer, now))
        squeue, sacct = command_output(answer, "squeue"), command_output(answer, "sacct")
        scontrol: CommandOutput | None = None
        if self._scheduler == "slurm":
            known = {parts_of(line.partition("|")[0].strip())[0] for line in (squeue.stdout + "\n" + sacct.stdout).splitlines()}
            missing = [run.job_id for run in runs if run.job_id.isdigit() and run.job_id not in known]
            if missing:
                scontrol = command_output(self._line.request("details", " ".join(missing[:MISSING_CAP])), "scontrol")
        pending = command_output(answer, "pending") if "pending" in answer.sections else None
        return Sweep(runs, now, squeue, sacct, scontrol, queued_keys(answer), pending)

    def fetch(
        self, run_key: str, log_offset: int, log_cap: int, results_cap: int, results_path: str = "", part: Part | None = None
    ) -> RunFiles | None:
        """As in `ports.Cluster`."""
        self._ask_for(run_key, log_offset, log_cap, results_cap, results_path, part)
        return run_files(self._line.talk.answer(LOOK_SECONDS), log_cap, results_cap)

    def records(self, run_keys: Sequence[str]) -> tuple[str | None, ...]:
        """As in `ports.Cluster`: requests are sent ahead, so it is one round trip for dozens of them."""
        found: list[RunFiles | None] = []
        for first in range(0, len(run_keys), WINDOW):
            batch = run_keys[first : first + WINDOW]
            for run_key in batch:
                self._ask_for(run_key, BEYOND_ANY_LOG, 0, 0, "")
            found += [run_files(self._line.talk.answer(LOOK_SECONDS), 0, 0) for _ in batch]
        return tuple(files.record if files else None for files in found)

    def _ask_for(self, run_key: str, log_offset: int, log_cap: int, results_cap: int, results_path: str, part: Part | None = None) -> None:
        name = results_path or "results.json"
        if not is_inside(name):
            raise ValueError(f"the results' path {name!r} leaves the run's folder")
        which = "-" if part is None else part if part == "batch" else check_name(str(part), PART, "part")
        self._line.talk.ask("fetch", check_name(run_key, KEY, "run key"), str(log_offset), str(log_cap), str(results_cap), name, which)

    def find(self, tag: str) -> tuple[str, ...]:
        """As in `ports.Cluster`."""
        answer = self._line.request("find", check_name(tag, NAME, "tag"))
        return records_of(answer, "record")

    # ------------------------------------------------------------------ changing

    def save(self, run_key: str, record: str, reported: str) -> None:
        """As in `ports.Cluster`."""
        self._line.give("save", check_name(run_key, KEY, "run key"), reported, data=record.encode())

    def retire(self, run_key: str) -> None:
        """As in `ports.Cluster`."""
        self._line.request("retire", check_name(run_key, KEY, "run key"))

    def cancel(self, run_key: str, why: str = "") -> GivenUp:
        """As in `ports.Cluster`; a local job's whole process group gets SIGTERM. Where an API has the job, it is not ended from here."""
        answer = self._line.request("cancel", check_name(run_key, KEY, "run key"), words_of(why, 200))
        said = command_output(answer, "command")
        others = tuple(check_name(key, KEY, "run key") for key in answer.text("others").split())
        return GivenUp(said.status, said.stdout, said.stderr, others)

    def probe(self, account: str, partition: str) -> tuple[Probe, ...]:
        """As in `ports.Cluster`. Names that no account or partition can have are refused as `cluster.bad-request`."""
        answer = self._line.request("probe", account, partition)
        return tuple(Probe(name, command_output(answer, name)) for name in answer.sections if "." not in name)

    def estimate(self, script: str) -> CommandOutput:
        """As in `ports.Cluster`."""
        return command_output(self._line.give("estimate", data=script.encode()), "command")

    def close(self) -> None:
        """As in `ports.Cluster`; an unused claim is given back by the far side."""
        self._line.close()


def somebodys(answer: Answer) -> AlreadySubmitted | InProgress:
    """A claim's answer when the run is not ours to submit."""
    match answer.words:
        case ["already", job]:
            return AlreadySubmitted("" if job == "-" else job_id(job), answer.text("record"))
        case ["busy", seconds] if seconds.lstrip("-").isdigit():
            return InProgress(max(0, int(seconds)))
    raise unclear("claim", answer)


def _outcome(verb: str, answer: Answer) -> Submitted | Refused:
    """What the scheduler said to a run that was handed to it."""
    match answer.words:
        case ["submitted", job]:
            return Submitted(job_id(job))
        case ["refused"]:
            return Refused(words_of(answer.text("words"), 2000))
    raise unclear(verb, answer)
