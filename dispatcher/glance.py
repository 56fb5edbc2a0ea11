"""The event file → the event and what it asks for, by the standard library alone: before anything is installed, imported or asked."""

from __future__ import annotations

from dataclasses import replace

from dispatcher.command import Command, parse_command
from dispatcher.errors import InputError
from dispatcher.event import Event, OtherEvent, ScheduleEvent, parse_event
from dispatcher.inputs import Inputs, read_event


def glance(inputs: Inputs, event_name: str | None = None, event_path: str | None = None) -> tuple[Event, Command]:
    """What happened and what is asked for; name and file are the environment's unless given. Raises `InputError` (`input.*`)."""
    name = event_name or inputs.github.event_name
    event = parse_event(name, read_event(event_path or inputs.github.event_path), inputs.github.run_id)
    if isinstance(event, ScheduleEvent):
        # A schedule's payload says next to nothing; it runs on the default branch, whose commit GITHUB_SHA then is.
        repository, branch = event.repository or inputs.github.repository, event.default_branch or inputs.github.sha
        event = replace(event, repository=repository, default_branch=branch)
    told = "" if isinstance(event, OtherEvent) else event.repository
    if inputs.github.repository and told and told.lower() != inputs.github.repository.lower():
        words = f"The event is about {told}, but GITHUB_REPOSITORY is {inputs.github.repository}."
        raise InputError("input.event", words, "Give the event of this repository.")
    return event, parse_command(event, inputs.word)
