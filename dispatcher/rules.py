"""Rules of the policy → who may, which overrides and images, how much, how many at once, and from where on a second person must agree."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from dispatcher.grammar import Override
from dispatcher.values import Between, Duration, Line, Login, Model, OneOrMore, RoleName, Team

DEFAULT_ROLES = ("admin", "maintain", "write")
# GitHub's own roles, each with everything that those before it may do; others are an organisation's custom roles.
STANDARD_ROLES = ("read", "triage", "write", "maintain", "admin")


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    return value


Regex = Annotated[Line, AfterValidator(_regex)]
Patterns = OneOrMore[Line]
Count = Annotated[int, Between(1, 100_000)]


def _number(value: Any) -> Any:
    """The loaders keep fractions as they were written; pydantic alone would also take `true`, `nan` and `1_0`."""
    if isinstance(value, bool) or (isinstance(value, str) and not re.fullmatch(r"[0-9]{1,8}(\.[0-9]{1,6})?", value, re.ASCII)):
        raise ValueError("is not a number such as `64` or `1.5`")
    return value


Hours = Annotated[
    float,
    BeforeValidator(_number),
    Field(ge=0, le=10_000_000, allow_inf_nan=False),
    WithJsonSchema({"type": ["number", "string"], "minimum": 0, "maximum": 10_000_000, "pattern": r"^[0-9]{1,8}(\.[0-9]{1,6})?$"}),
]
"""GPU-hours."""


class Allow(Model):
    """Who may: anybody with one of the roles, or listed by name, or in one of the teams, and not in `deny`.

    A role includes the higher ones. When users or teams are listed and roles are not, only those users and teams may.
    """

    roles: OneOrMore[RoleName] = Field(default=DEFAULT_ROLES, description="Repository roles; `write` includes maintain and admin.")
    users: OneOrMore[Login] = Field(default=(), description="Account names.")
    teams: OneOrMore[Team] = Field(default=(), description="Teams, written `org/team`.")
    deny: OneOrMore[Login] = Field(default=(), description="Account names that may not, whatever else says so.")

    @model_validator(mode="before")
    @classmethod
    def _only_the_listed(cls, given: Any) -> Any:
        if isinstance(given, dict) and "roles" not in given and (given.get("users") or given.get("teams")):
            return {**given, "roles": ()}
        return given

    def admits_role(self, role: str | None) -> bool:
        """Whether the role is listed, or stands above a listed one."""
        if role in STANDARD_ROLES:
            return any(role in STANDARD_ROLES[STANDARD_ROLES.index(least) :] for least in self.roles if least in STANDARD_ROLES)
        return role is not None and role in self.roles

    def admits_user(self, login: str) -> bool:
        """Whether the account is listed; GitHub's account names ignore case."""
        return login.lower() in {name.lower() for name in self.users}

    def denies(self, login: str) -> bool:
        """Whether the account is refused by name."""
        return login.lower() in {name.lower() for name in self.deny}


class Overrides(Model):
    """Which overrides may be given. In a pattern `*` stands for anything; `run.…` keys are met only by patterns that begin with `run.`."""

    allow: Patterns = Field(default=("*",), description="Patterns of keys that may be set, for example `train.*` or `run.nodes`.")
    deny: Patterns = Field(default=(), description="Patterns of keys that may not, whatever `allow` says.")
    values: dict[Line, Regex] = Field(
        default_factory=dict, description="Pattern of keys → regular expression that the whole value must match."
    )

    def refusal(self, override: Override) -> str | None:
        """Why an override may not be given (the rule, in words), or None when it may."""
        if any(_meets(override, pattern) for pattern in self.deny):
            return "overrides.deny"
        if not any(_meets(override, pattern) for pattern in self.allow):
            return "overrides.allow"
        for pattern, shape in self.values.items():
            if _meets(override, pattern) and not re.fullmatch(shape, override.value):
                return f"overrides.values: {shape}"
        return None


def _meets(override: Override, pattern: str) -> bool:
    if override.target == "profile" and not pattern.startswith("run."):
        return False
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), override.key) is not None


class Limits(Model):
    """How much one run may ask for; without a number there is no limit. A run whose profile has no time limit exceeds every limit."""

    nodes: Count | None = Field(default=None, description="Nodes.")
    time: Duration | None = Field(default=None, ge=1, description="Time limit, such as `4h`.")
    gpu_hours: Hours | None = Field(default=None, description="Nodes × GPUs × time limit.")


class Active(Model):
    """How many runs may be at it at once (submitted and not ended); the next ones are queued here, in the order they were asked for."""

    user: Count | None = Field(default=None, description="Of one account.")
    pull: Count | None = Field(default=None, description="Of one pull request.")
    profile: Count | None = Field(default=None, description="Of one profile.")


class Budget(Model):
    """GPU-hours in a calendar month (UTC), counted from the ledger: what ended with what it used, what has not with what it asked for."""

    user: Hours | None = Field(default=None, description="Of one account.")
    pull: Hours | None = Field(default=None, description="Of one pull request.")
    profile: Hours | None = Field(default=None, description="Of one profile.")
    month: Hours | None = Field(default=None, description="Of the whole repository.")


class Approval(Model):
    """From where on a run waits until a second person, never the requester, has approved it: `/train approve sha=…`."""

    nodes: Count | None = Field(default=None, description="More nodes than this need it.")
    gpu_hours: Hours | None = Field(default=None, description="More GPU-hours than this need it.")
    allow: Allow | None = Field(default=None, description="Who may approve; without it, whoever may use the profile.")


class Rule(Model):
    """What one profile or recipe asks for beyond the general rules. `allow`, `overrides.allow`, `images`, and every number that is given
    replace the general ones; `deny` and `overrides.values` add up. Where profile and recipe both have a rule, both must be met."""

    allow: Allow | None = Field(default=None, description="Who may use it.")
    overrides: Overrides | None = Field(default=None, description="Which overrides it takes.")
    images: Patterns | None = Field(default=None, description="Which container images may run, as patterns with `*`.")
    limits: Limits = Field(default=Limits(), description="How much one run may ask for.")
    active: Count | None = Field(default=None, description="How many of its runs may be at it at once.")
    budget: Hours | None = Field(default=None, description="Its GPU-hours in a calendar month.")
    approval: Approval | None = Field(default=None, description="From where on a second person must agree.")
