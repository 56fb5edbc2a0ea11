"""The line to one cluster's ledger: opened beside other work when it is first needed, then one request after another."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dispatcher.effects.channel import Channel
from dispatcher.effects.conversation import Answer, Conversation

CLAIM_SECONDS = 120.0
SUBMIT_SECONDS = 600.0
LOOK_SECONDS = 90.0


class Line:
    """`connect` is called once, at the first request or by `start()`; what it raises is raised by every request."""

    def __init__(self, connect: Callable[[], Channel], scheduler: str, job_dir: str) -> None:
        self._connect, self._scheduler, self._job_dir = connect, scheduler, job_dir
        self._conversation: Conversation | None = None
        self._failure: Exception | None = None
        self._opening: threading.Thread | None = None

    def start(self) -> None:
        """Begins to connect, beside whatever else there is to do."""
        if self._opening is None and self._conversation is None:
            self._opening = threading.Thread(target=self._open, name="cluster", daemon=True)
            self._opening.start()

    def _open(self) -> None:
        try:
            self._conversation = Conversation(self._connect(), self._scheduler, self._job_dir)
        except Exception as error:
            self._failure = error

    @property
    def talk(self) -> Conversation:
        """The conversation, once it is there."""
        self.start()
        if self._conversation is None and self._opening is not None:
            self._opening.join()
        if self._failure is not None:
            raise self._failure
        assert self._conversation is not None
        return self._conversation

    def request(self, *words: str, timeout: float = LOOK_SECONDS) -> Answer:
        """A verb with its arguments → its answer."""
        self.talk.ask(*words)
        return self.talk.answer(timeout)

    def give(self, *words: str, data: bytes) -> Answer:
        """The same for a verb that takes bytes: their number is its last argument, and it begins when it has all of them."""
        self.talk.ask(*words, str(len(data)))
        self.talk.send(data + b"go\n")
        return self.talk.answer(LOOK_SECONDS)

    def close(self) -> None:
        """Ends the conversation, if there is one."""
        if self._opening is not None:
            self._opening.join()
        if self._conversation is not None:
            self._conversation.close()

    def start_over(self) -> None:
        """Closes it, so that the next request opens another one."""
        self.close()
        self._conversation = self._opening = None
