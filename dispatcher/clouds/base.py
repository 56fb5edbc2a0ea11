"""What every profile has whose jobs are started through an API, and not on a login node: where its ledger is, and what it asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from dispatcher.document import ProblemsError
from dispatcher.executor import Reached
from dispatcher.values import Between


class CloudProfile(Reached):
    """An executor without a login node: the job is started through its API, and the run's records lie somewhere else.

    Where they lie is said by `tunnel` with `host`, `user` and `job_dir`, or by the policy's `ledger`.
    """

    EXTRA: ClassVar[str] = ""
    """The extra of this distribution that brings the API's client; empty where it is always there."""
    CREDENTIALS: ClassVar[tuple[str, ...]] = ()
    """Variables of the runner that the API's client reads: nothing else of the runner's environment reaches it."""
    FIXED: ClassVar[frozenset[str]] = frozenset()
    """Fields that no override sets: where a job goes and what it may reach is never a commenter's choice."""
    REFUSED: ClassVar[Mapping[str, str]] = {}
    """Fields of NeMo-Run's executor that are not here, besides those in `counterparts.py` → why, after “`field` is not read:”."""
    LAUNCHERS: ClassVar[tuple[str, ...]] = ()
    """Launchers that it takes; empty where it takes all that need no Slurm."""

    executor: str = Field(description="What runs the job.")
    tunnel: Literal["ssh", "local"] | None = Field(  # type: ignore[assignment]
        default=None, description="Where runs are recorded: over SSH, or `local` on the runner itself. Without it: the policy's `ledger`."
    )
    nodes: Annotated[int, Between(1, 10_000)] = Field(default=1, description="Nodes (or pods) of the job.")
    gpus_per_node: Annotated[int, Between(0, 64)] | None = Field(default=None, description="GPUs on each node.")
    attach: bool = Field(default=False, description="Wait for the job and show its log.")

    @model_validator(mode="before")
    @classmethod
    def _refuses(cls, value: Any) -> Any:
        given = value if isinstance(value, dict) else {}
        found = [((name,), f"`{name}` is not read: {why}") for name, why in cls.REFUSED.items() if name in given]
        if found:
            raise ProblemsError(found)
        return value

    @model_validator(mode="after")
    def _ledger_is_reachable(self) -> Self:
        problems = self.unreachable
        if self.tunnel is None and self.host is not None:
            problems = [(("host",), "`host` is the machine on which runs are recorded: write `tunnel: ssh` beside it")]
        if self.tunnel is not None and self.job_dir is None:
            problems = [*problems, ((), "`job_dir` is missing: the folder in which runs are recorded")]
        if problems:
            raise ProblemsError(problems)
        return self

    @property
    def image(self) -> str | None:
        """The container image, whatever this executor calls it."""
        return getattr(self, "container_image", None)

    @property
    def place(self) -> tuple[str, ...]:
        """Which API it is, and whose part of it: jobs of one place know nothing of another's."""
        return ()

    @property
    def returns_log(self) -> bool:
        """Whether the job's log comes back, and with it its results."""
        return True

    @property
    def ledger_name(self) -> str:
        """The folder below `job_dir` in which the runs of this place are recorded: a look at one place must not judge another's runs."""
        return f"{self.executor}-{hashlib.sha256(chr(0).join(self.place).encode()).hexdigest()[:8]}"

    @property
    def machines(self) -> int:
        """Nodes of the whole job."""
        return self.nodes

    @property
    def gpu_count(self) -> int:
        """GPUs of the whole job."""
        return self.nodes * (self.gpus_per_node or 0)

    @property
    def address(self) -> str:
        """Where jobs run, for people."""
        return " · ".join([self.executor, *(part for part in self.place if part)])

    def log_link(self, job_id: str, run_key: str, path: str) -> str | None:
        """The log's address; None when the profile has no template."""
        return self._link(job_id=job_id, run_key=run_key, path=path, user=self.user or "", host=self.host or "")
