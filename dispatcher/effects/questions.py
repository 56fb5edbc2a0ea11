"""Questions → answers, on the terminal of whoever runs `init`. Everything goes to standard error: standard output is the result's."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.prompt import Confirm, InvalidResponse, PromptBase
from rich.text import Text

from dispatcher.known_hosts import HostKey
from dispatcher.onboarding import Answer, Question, read_fingerprint
from dispatcher.untrusted import printable

YES, NO, LATER = "yes", "no", "later"


class Interview:
    """Asks until an answer can be used. Ctrl-C raises KeyboardInterrupt, the end of the input EOFError."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def ask(self, question: Question, default: str | None) -> Answer:
        """One question's answer, read and checked."""
        prompt = _Checked(Text(question.words), question.read, self._console, question.choices)
        answer: Any = prompt() if default is None else prompt(default=default)
        # A default comes back as it was proposed, unread.
        return question.read(answer) if isinstance(answer, str) and answer == default else answer

    def confirm(self, words: str, default: bool) -> bool:
        """Yes or no."""
        return Confirm.ask(Text(words), console=self._console, default=default)

    def same_as_published(self, where: str, keys: Sequence[HostKey]) -> str:
        """`yes`, `no`, `later`, or the fingerprint that the administrators published, as somebody pasted it."""
        self._console.print(Text(f"{where} shows these keys:"))
        for key in keys:
            self._console.print(Text(f"  {key.kind:<20} {key.fingerprint}"))
        words = "Does this match what your administrator published? yes (all of it), no, later, or paste the published fingerprint"
        answer: str = _Checked(Text(words), _verdict, self._console, ())()
        return answer

    def show_change(self, path: str, old: str, new: str) -> None:
        """What would change in a file that is there already."""
        styles = {"+": "green", "-": "red", "@": "cyan"}
        for line in change(path, old, new):
            self._console.print(Text(line, style=styles.get(line[:1], "")))

    def say(self, words: str) -> None:
        """A line for whoever sits there."""
        self._console.print(Text(words))


def change(path: str, old: str, new: str) -> list[str]:
    """A unified difference, without what could steer a terminal."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), f"{path} (as it is)", f"{path} (as it would be)", lineterm="")
    return [printable(line) for line in lines]


def _verdict(text: str) -> str:
    if text.lower() in (YES, NO, LATER):
        return text.lower()
    try:
        return read_fingerprint(text)
    except ValueError as error:
        raise ValueError(f"neither `yes` (in full), `no` nor `later`, and {error}") from None


class _Checked(PromptBase[Any]):
    """A prompt whose answer is read by a function of ours."""

    response_type = str

    def __init__(self, prompt: Text, read: Callable[[str], Answer], console: Console, choices: Sequence[str]) -> None:
        super().__init__(prompt, console=console, choices=list(choices) or None)
        self._read = read

    def render_default(self, default: Any) -> Text:
        """Nothing to show where nothing is proposed."""
        return super().render_default(default) if default else Text("(empty)", "prompt.default")

    def process_response(self, value: str) -> Answer:
        """As the function has it; its words are the complaint."""
        text: str = super().process_response(value)
        try:
            return self._read(text)
        except ValueError as error:
            raise InvalidResponse(Text(f"That is {error}.", "prompt.invalid")) from None
