"""The shapes of single configuration values: text from a reviewed file → a value that may reach a shell script, Slurm or SSH.

What NeMo-Run writes unquoted into the job's script (srun's arguments, images, mounts) is restricted here to characters that need no quotes.
Each shape says in words what it takes; the words are the error's text, the pattern is the JSON Schema's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from dispatcher.grammar import FULL_SHA, NAME, RECIPE_NAME, REF
from dispatcher.jobparts import array_tasks


class Model(BaseModel):
    """What every table in a configuration file is: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _as_text(value: Any) -> Any:
    """A number or a truth value → its text; the loaders keep numbers as they were written.

    Raises ValueError for what YAML's escapes can write and nothing can encode: half of a surrogate pair.
    """
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        raise ValueError("contains half a character (write it itself, or as `\\U` with eight digits)")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


def _as_list(value: Any) -> Any:
    """One text or number → a list of it."""
    return (value,) if isinstance(value, (str, int)) else value


class _OrOne:
    """Says in the JSON Schema what `_as_list` does."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        many = handler(schema)
        return {"anyOf": [many, many["items"]]} if "items" in many else many


T = TypeVar("T")
OneOrMore = Annotated[tuple[T, ...], BeforeValidator(_as_list), _OrOne()]
"""A list that may be written as its only item."""


def _no_truth(value: Any) -> Any:
    """Refuses `true` where a number is meant; digits in text are fine (they come from `${oc.env:…}` and overrides)."""
    if isinstance(value, bool) or (isinstance(value, str) and not re.fullmatch(r"[0-9]{1,18}", value)):
        raise ValueError("is not a whole number")
    return value


@dataclass(frozen=True)
class Shape:
    """Text that must match the pattern wholly; `words` complete the sentence “is not …”."""

    pattern: str
    words: str
    limit: int = 1024

    def check(self, value: str) -> str:
        """The value, when it has the shape. Raises ValueError."""
        if len(value) > self.limit or not re.fullmatch(self.pattern, value, re.ASCII):
            raise ValueError(f"is not {self.words}")
        return value

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        checked = core_schema.no_info_after_validator_function(self.check, handler(source))
        return core_schema.no_info_before_validator_function(_as_text, checked)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        words = self.words[0].upper() + self.words[1:] + "."
        return {"type": "string", "pattern": f"^(?:{self.pattern})$", "maxLength": self.limit, "description": words}


@dataclass(frozen=True)
class Between:
    """A whole number within bounds; digits in text are fine."""

    low: int
    high: int

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_no_truth, core_schema.int_schema(ge=self.low, le=self.high))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("contains a NUL character")
    return value


def _one_line(value: str) -> str:
    if re.search(r"[\0\r\n]", value):
        raise ValueError("is not one line")
    return value


def parse_duration(value: Any) -> Any:
    """`90s`, `10m`, `4h`, `2d` (or several: `1h30m`) → seconds; a bare number is seconds."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = re.fullmatch(r"(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s?)?", value.strip()) if isinstance(value, str) else None
    if not found or not any(found.groups()) or len(value) > 32:
        raise ValueError("is not a duration such as `90s`, `10m` or `4h`")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def slurm_seconds(value: str) -> int:
    """Slurm's time formats → seconds; https://slurm.schedmd.com/sbatch.html#OPT_time lists the six. Raises ValueError."""
    days, dash, rest = value.partition("-") if "-" in value else ("0", "", value)
    parts = rest.split(":")
    if not re.fullmatch(r"[0-9]{1,4}", days) or len(parts) > 3 or not all(re.fullmatch(r"[0-9]{1,6}", part) for part in parts):
        raise ValueError("is not a time in one of Slurm's forms, such as `04:00:00`, `1-12` or `90` (minutes)")
    numbers = [int(part) for part in parts]
    if dash:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, (*numbers, 0)[:2]
    total = ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise ValueError("is no time limit: zero means unlimited to Slurm")
    return total


def _slurm_time(value: str) -> str:
    slurm_seconds(value)
    return value


def _array(value: str) -> str:
    array_tasks(value)
    return value


Text = Annotated[str, BeforeValidator(_as_text), AfterValidator(_no_nul), WithJsonSchema({"type": ["string", "integer", "boolean"]})]
Line = Annotated[str, BeforeValidator(_as_text), AfterValidator(_one_line), WithJsonSchema({"type": ["string", "integer", "boolean"]})]
Duration = Annotated[int, BeforeValidator(parse_duration), WithJsonSchema({"type": ["string", "integer"], "examples": ["10m", "4h"]})]
SlurmTime = Annotated[
    str,
    BeforeValidator(_as_text),
    AfterValidator(_slurm_time),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["04:00:00", "1-12:00:00", 90], "description": "Slurm's time formats."}),
]

ProfileName = Annotated[str, Shape(NAME.pattern, "a profile's name (letters, digits, `_`, `-`, `.`)", 64)]
RecipeName = Annotated[str, Shape(RECIPE_NAME.pattern, "a recipe's name (letters, digits, `_`, `-`, `.`, `/`)", 260)]
Ref = Annotated[str, Shape(REF.pattern, "the name of a branch or tag", 255)]
Sha = Annotated[str, Shape(FULL_SHA.pattern, "a full commit SHA")]
EnvName = Annotated[str, Shape(r"[A-Za-z_][A-Za-z0-9_]*", "an environment variable's name", 128)]
Login = Annotated[str, Shape(r"[A-Za-z0-9][A-Za-z0-9_-]*(\[bot\])?", "an account name (without `@`)", 64)]
Team = Annotated[str, Shape(r"[A-Za-z0-9][A-Za-z0-9_-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*", "a team, written `org/team`", 200)]
RoleName = Annotated[str, Shape(r"[A-Za-z0-9][A-Za-z0-9 _.-]*", "a repository role", 64)]

# A path inside the repository: no way up, none absolute, none that an option parser or a shell could take for something else.
RelativePath = Annotated[
    str,
    Shape(
        r"(?!.*(?:^|/)\.\.?(?:/|$))[A-Za-z0-9_.][A-Za-z0-9_.@+=,-]*(?:/[A-Za-z0-9_.@+=,-]+)*",
        "a relative path inside the repository (no `.` or `..` parts, no spaces)",
    ),
]
ScriptPath = Annotated[
    str,
    Shape(
        r"(?!.*(?:^|/)\.\.?(?:/|$))(?:/?[A-Za-z0-9_.][A-Za-z0-9_.@+=,-]*)(?:/[A-Za-z0-9_.@+=,-]+)*",
        "a relative path inside the repository (no `.` or `..` parts, no spaces), or an absolute path",
    ),
]
GlobPattern = Annotated[str, Shape(r"(?!/?\.\./)[^\x00-\x1f\x7f]+", "a pattern in gitignore's form", 512)]
# It becomes a folder in #SBATCH lines (where % is a placeholder) and one side of a container mount (where , and : separate).
AbsolutePath = Annotated[
    str,
    Shape(r"(?!.*/\.\.(?:/|$))/[A-Za-z0-9_.@+-]+(?:/[A-Za-z0-9_.@+-]+)*/?", "an absolute path (no `..`, no spaces, no `~`, no variables)"),
]

Account = Annotated[str, Shape(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "a Slurm account (letters, digits, `_`, `.`, `-`)", 128)]
Partitions = Annotated[
    str, Shape(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:,[A-Za-z0-9_][A-Za-z0-9_.-]*)*", "a partition or several, with commas", 512)
]
Memory = Annotated[str, Shape(r"[0-9]{1,9}[KMGTkmgt]?[Bb]?", "an amount of memory such as `64G`", 16)]
Gres = Annotated[
    str,
    Shape(
        r"[A-Za-z][A-Za-z0-9_]*(?:[:/=][A-Za-z0-9_.-]+)*(?:,[A-Za-z][A-Za-z0-9_]*(?:[:/=][A-Za-z0-9_.-]+)*)*", "a gres such as `gpu:a100:8`"
    ),
]
Constraint = Annotated[str, Shape(r"[A-Za-z0-9_!\[(][A-Za-z0-9_.,:&|!*()\[\]-]*", "a Slurm constraint such as `h100&ib`", 512)]
NodeList = Annotated[
    str,
    Shape(
        r"[A-Za-z0-9](?:[A-Za-z0-9_.-]|\[[0-9,-]+\])*(?:,[A-Za-z0-9](?:[A-Za-z0-9_.-]|\[[0-9,-]+\])*)*", "a node list such as `n[1-4],n7`"
    ),
]
Image = Annotated[str, Shape(r"[A-Za-z0-9/][A-Za-z0-9_./:@#+-]*", "a container image (a reference or a path, no spaces)")]
_MOUNT_PATH = r"/[A-Za-z0-9_./@+-]*"
Mount = Annotated[
    str,
    Shape(rf"{_MOUNT_PATH}:{_MOUNT_PATH}(?::[A-Za-z0-9=_+-]+)?", "a mount, written `/from:/to` or `/from:/to:ro` (no spaces, no commas)"),
]
SrunArgument = Annotated[
    str, Shape(r"--?[A-Za-z][A-Za-z0-9_.,:/@=+-]*", "an srun argument that needs no quotes, such as `--mpi=pmix`", 256)
]
SbatchName = Annotated[str, Shape(r"[a-z][a-z0-9_-]*", "an sbatch option without dashes in front, such as `mail_type`", 64)]
SbatchValue = Annotated[str, Shape(r"[A-Za-z0-9_.,:/@=+\[\]-]*", "a value that needs no quotes", 256)]
Signal = Annotated[
    str, Shape(r"(?:[RB]{1,2}:)?(?:[A-Za-z][A-Za-z0-9+]*|[0-9]{1,2})(?:@[0-9]{1,5})?", "a signal such as `USR1@120` or `B:TERM@60`", 32)
]
Network = Annotated[str, Shape(r"[A-Za-z0-9_][A-Za-z0-9_.,:=+-]*", "network options such as `sharp` or `instances=2,user_space`", 256)]
JobId = Annotated[str, Shape(r"[1-9][0-9]{0,9}(?:[_+][0-9]{1,7})?", "a Slurm job's id such as `123`, `123_4` or `123+1`", 24)]
_TASKS = r"[0-9]{1,7}(?:-[0-9]{1,7}(?::[0-9]{1,7})?)?"
ArrayTasks = Annotated[
    str,
    Shape(rf"{_TASKS}(?:,{_TASKS})*(?:%[0-9]{{1,5}})?", "the tasks of an array such as `0-7`, `1,3,5` or `0-31%4`", 256),
    AfterValidator(_array),
]
Program = Annotated[str, Shape(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]*", "a program's name or path (no spaces)", 256)]
Module = Annotated[str, Shape(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", "a Python module's dotted name", 256)]

_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
Host = Annotated[str, Shape(rf"{_HOST}|[0-9A-Fa-f:]{{2,45}}", "a host name or address", 254)]
User = Annotated[str, Shape(_USER, "a login name", 64)]
Jump = Annotated[str, Shape(rf"(?:{_USER}@)?{_HOST}(?::[0-9]{{1,5}})?", "a jump host, written `user@host:port`", 330)]
WebAddress = Annotated[str, Shape(r"https?://[^\s\x00-\x1f\x7f]+", "an http(s) address")]
