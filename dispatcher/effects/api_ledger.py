"""The ledger of runs whose jobs are started through an API: the same folder and the same program, which leaves starting a job to us.

A submission is laid down whole before the API is asked (`lay`, `take`), and the job's id is entered afterwards (`enter`). Who dies in
between leaves an orphan: whoever claims the run next asks the API whether there is a job of its name, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.effects.answers import KEY, control_tar, unclear
from dispatcher.effects.conversation import check_name
from dispatcher.effects.ledger import LedgerCluster, somebodys
from dispatcher.effects.line import SUBMIT_SECONDS
from dispatcher.ports import AlreadySubmitted, Claimed, ClaimRequest, Held, InProgress, Submission, Submitted


@dataclass(frozen=True)
class Orphan:
    """Somebody began to start the run's job and died; it is ours to settle now. `record` is the ledger's text."""

    record: str


@dataclass(frozen=True)
class Ours:
    """Everything is laid down, and the job may be started: by us and nobody else."""


class ApiLedger(LedgerCluster):
    """`LedgerCluster` with what only runs of an API need. Raises as that does."""

    def claim_or_orphan(self, request: ClaimRequest) -> Claimed | AlreadySubmitted | InProgress | Orphan:
        """As `claim`; code never lies here, so the whole of it has to be sent to the API each time."""
        answer = self._claim(request)
        match answer.words:
            case ["orphan"]:
                return Orphan(answer.text("record"))
            case ["claimed", resumed, *_]:
                return Claimed(resumed == "yes", False, None)
        return somebodys(answer)

    def lay(self, submission: Submission) -> Ours | Submitted | Held:
        """Lays everything small down: then it is ours, or waits in the queue. `Submitted` when it was taken over meanwhile."""
        control = control_tar(submission)
        talk = self._line.talk
        talk.ask("submit", check_name(submission.run_key, KEY, "run key"), "none", str(len(control)))
        talk.send(control + (b"hold\n" if submission.hold else b"go\n"))
        answer = talk.answer(SUBMIT_SECONDS)
        match answer.words:
            case ["yours"]:
                return Ours()
            case ["held"]:
                return Held()
            case ["submitted", job]:
                return Submitted(job)
        raise unclear("submit", answer)

    def take(self, run_key: str) -> Ours | Submitted | None:
        """A queued run's turn: it is ours. None when it is not in the queue any more."""
        answer = self._line.request("release", check_name(run_key, KEY, "run key"), timeout=SUBMIT_SECONDS)
        match answer.words:
            case ["yours"]:
                return Ours()
            case ["gone"] | ["held"]:
                return None
            case ["submitted", job]:
                return Submitted(job)
        raise unclear("release", answer)

    def enter(self, run_key: str, job_id: str) -> Submitted:
        """What is ours has this job now."""
        answer = self._line.request("enter", check_name(run_key, KEY, "run key"), job_id)
        if answer.words != ["submitted", job_id]:
            raise unclear("enter", answer)
        return Submitted(job_id)

    def unlaunched(self, run_key: str, begin_again: bool) -> Claimed | Held | None:
        """What is ours has no job: it waits in the queue again if it came from there, is ours to submit anew, or (None) is gone."""
        answer = self._line.request("unlaunched", check_name(run_key, KEY, "run key"), "again" if begin_again else "refused")
        match answer.words:
            case ["held"]:
                return Held()
            case ["claimed", "yes"]:
                return Claimed(True, False, None)
            case ["refused"]:
                return None
        raise unclear("unlaunched", answer)

    def bring(self, run_key: str) -> tuple[str, str]:
        """What was laid down of a run: its launch file and its environment."""
        answer = self._line.request("bring", check_name(run_key, KEY, "run key"))
        return answer.text("launch.json"), answer.text("env")

    def keep_log(self, run_key: str, log: bytes) -> None:
        """The log of an ended job, for when the API has forgotten it."""
        self._line.give("log_kept", check_name(run_key, KEY, "run key"), data=log)
