"""A container for a stand-in of an API that starts some: its command really runs here, with folders of ours in the place of its paths."""

from __future__ import annotations

import base64
import gzip
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_PACKED = re.compile(r"(?<=echo )[A-Za-z0-9+/=]+(?= \| base64 -d \| gzip -d )")


class ContainerStandIn:
    """`folders`: a path of the container → a folder of ours, which takes its place in the command and in the script that it unpacks."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folders: Mapping[str, Path], hostname: str) -> None:
        self._folders = folders
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        self._log = folders["/nemo_run"].parent / f"{folders['/nemo_run'].name}.log"
        inside = {name: self._ours(self._expanded(value)) for name, value in environment.items()}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [_PACKED.sub(self._unpacked, self._ours(word)) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ["PATH"], "HOSTNAME": hostname, **inside},
                start_new_session=True,
            )

    def _ours(self, text: str) -> str:
        for inside, folder in self._folders.items():
            text = re.sub(rf"(?<![\w/.-]){re.escape(inside)}(?![\w-])", str(folder), text)
        return text

    def _unpacked(self, found: re.Match[str]) -> str:
        script = gzip.decompress(base64.b64decode(found[0])).decode()
        return base64.b64encode(gzip.compress(self._ours(script).encode())).decode()

    @staticmethod
    def _expanded(value: str) -> str:
        """As Kubernetes does it, where no variable that is named is defined."""
        return re.sub(r"\$\$", "$", value)

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Its end."""
        return self._process.wait(60)

    def kill(self) -> None:
        """Ends all of it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)

    @property
    def log(self) -> str:
        """What it printed."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""
