"""What a record remembers of a failure: the cause's name, the line that says so, the places that its traceback names.

The cause's words stand in `causes.py`: so nobody who can write to a ledger puts words into our mouth.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dispatcher.causes import Cause, Kind, words_of

MAX_EVIDENCE = 300
MAX_PLACES = 20
MAX_PATH = 400
MAX_AROUND = 2100


def _inside(path: str) -> str:
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError("is no path below the repository's top folder")
    return path


class Place(BaseModel):
    """A line of the repository that a traceback names, at the run's commit; outer calls come first, the raising line is last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, AfterValidator(_inside)] = Field(pattern=r"^[^\x00-\x1f\x7f\\]{1,400}$")
    line: int = Field(ge=1, le=999_999)
    function: str = Field(default="", pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,99}$|^<(?:module|lambda|listcomp|genexpr|dictcomp|setcomp)>$|^$")


class Failure(BaseModel):
    """Why a run failed, decided once, at its end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    cause: str = Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")
    """A name of `CAUSES`."""
    evidence: str = Field(default="", max_length=MAX_EVIDENCE)
    """The line that says so, redacted; empty where nothing does."""
    said_by: Literal["scheduler", "exit status", "log", "batch log"]
    around: str = Field(default="", max_length=MAX_AROUND)
    """The lines around it, redacted, where the log's end that is shown has none of them: it stands in the batch script's log, and these are
    Slurm's; or it is very long."""
    error: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,79})?$")
    """The name of the Python exception."""
    rank: int | None = Field(default=None, ge=0, le=999_999)
    """Whose line it is, where the lines of a log say that."""
    places: tuple[Place, ...] = Field(default=(), max_length=MAX_PLACES)

    @property
    def words(self) -> Cause:
        """The cause's words; of a cause that a later version has written, those of its class."""
        return words_of(self.kind, self.cause)
