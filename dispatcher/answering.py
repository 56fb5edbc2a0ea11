"""An answer → GitHub: a comment where the command was given, or, for people without rights here, a reaction and no words."""

from __future__ import annotations

from datetime import datetime

from dispatcher.answer import Answer
from dispatcher.authorise import Denial, Facts, needed_teams
from dispatcher.configuration import read_policy
from dispatcher.errors import DispatchError, Exit
from dispatcher.event import CheckEvent, CommentEvent, Event, LabelEvent
from dispatcher.lookups import with_teams
from dispatcher.publish import publish_answer
from dispatcher.refusals import told
from dispatcher.rights import may_command
from dispatcher.verbs import Help
from dispatcher.world import Outcome, World


def answer(world: World, event: Event, words: Answer, exit_code: Exit | None = None) -> Outcome:
    """Says what was decided: in the command's comment where there is a pull request, in the summary and outputs always."""
    url = ""
    code = words.exit if exit_code is None else exit_code
    if world.forge is not None:
        comment = event.comment_id if isinstance(event, CommentEvent) else None
        try:
            if isinstance(event, CommentEvent | LabelEvent) and words.refuses and not _is_insider(event, world):
                if comment is not None and words.reaction is not None:
                    world.forge.react(comment, words.reaction)
            else:
                url = publish_answer(world.forge, words, _pull_of(event), trigger_of(event), _since(event), comment)
        except DispatchError as error:
            world.say(f"The answer could not be posted: {error.cause} {error.next_step}")
    return Outcome(code, {**words.outputs, "comment-url": url}, words.summary)


def trigger_of(event: Event) -> str:
    """What names the event; empty for those that have no name."""
    return getattr(event, "trigger", "")


def _is_insider(event: CommentEvent | LabelEvent, world: World) -> bool:
    """Whether whoever is refused may give commands at all, or the policy answers everybody.

    Labels can only be set by people with rights; but a standing one is acted on for whoever pushed, who may be anybody. What cannot be
    looked up is a no: one more silence, not one more comment.
    """
    if isinstance(event, LabelEvent) and not event.of_a_push:
        return True
    who = event.author if isinstance(event, CommentEvent) else event.sender
    try:
        policy = read_policy(world)
        if policy.noise.outsiders == "comment":
            return True
        # Of a stranger's comment GitHub is asked no more than has to be: the whole repository shares a thousand requests an hour.
        facts = Facts(actor=who, role=world.forge.role(who) if world.forge and who else None)
        facts = with_teams(facts, needed_teams(Help(), facts, policy), world)
        return not isinstance(may_command(facts, policy), Denial)
    except DispatchError as error:
        world.say(f"Whether {who} may give commands could not be looked up: {error.cause}")
        return False


def _pull_of(event: Event) -> int | None:
    """Where to answer: only what somebody asked for has an answer there, and nobody asks by pushing."""
    return event.number if isinstance(event, CommentEvent | LabelEvent | CheckEvent) else None


def _since(event: Event) -> datetime | None:
    """Since when a comment of ours about this event can exist; None when the event does not say."""
    return told(event.created_at) if isinstance(event, CommentEvent) else None
