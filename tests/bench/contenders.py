"""Three ways from a checkout to a Slurm job: `git archive | ssh`, a plain NeMo-Run script, and `nemotron-dispatch submit`.

Each is timed as a whole process, from its start to its end, and each prints the job's id, which is checked.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.checkout import Checkout
from tests.bench.process import Failed, Ran, run, settle
from tests.rig.sshd import Sshd

BIN = Path(sys.executable).parent
PLAIN_NEMORUN = Path(__file__).with_name("plain_nemorun.py")


@dataclass
class Site:
    """The login node as everybody sees it: through `port` of 127.0.0.1, behind the wire; `home` is an empty folder."""

    sshd: Sshd
    port: int
    folder: Path
    home: Path = field(init=False)

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.home.mkdir()
        self.known_hosts = self.folder / "known_hosts"
        self.known_hosts.write_text(self.sshd.known_hosts_at(self.port))

    @property
    def ssh_options(self) -> list[str]:
        """What makes OpenSSH's client come in with this key and check this host, and read nothing of the machine."""
        options = ["BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=none"]
        named = [f"UserKnownHostsFile={self.known_hosts}", *options]
        return ["-F", "none", "-i", str(self.sshd.key().path), *(word for option in named for word in ("-o", option))]

    def environment(self, **more: str) -> dict[str, str]:
        """What all of them find: nothing of the machine but PATH."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8", **more}

    def new_folder(self, name: str) -> Path:
        """A name below the site's folder that nothing has yet."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))


class Contender(ABC):
    """One of the three. `forget()` makes the next submission a first one."""

    name: str

    def __init__(self, site: Site) -> None:
        self.site = site
        self.job_dir = site.folder
        self.forget()

    def forget(self) -> None:
        """A job_dir that nothing was ever sent to; the old one's room on the disk is given back."""
        settle(self.site.folder)
        if self.job_dir != self.site.folder:
            shutil.rmtree(self.job_dir, ignore_errors=True)
        self.job_dir = self.site.new_folder("jobs")

    def submit(self, checkout: Checkout, *, memory: bool = False) -> Ran:
        """Submits the checkout's HEAD.

        Raises:
            Failed: it did not end well, or there is no job.
        """
        ran = self._submit(checkout, memory)
        if not re.search(r"\b[1-9]\d*\b", ran.stdout):
            raise Failed(f"{self.name} printed no job id: {ran.stdout[-500:]}{ran.stderr[-2000:]}")
        return ran

    @abstractmethod
    def _submit(self, checkout: Checkout, memory: bool) -> Ran: ...


class GitArchive(Contender):
    """What a shell can do at best: one connection, the whole archive, one sbatch; no ledger, no lock, nothing unpacked twice."""

    name = "git archive | ssh"

    def _submit(self, checkout: Checkout, memory: bool) -> Ran:
        folder = f"{self.job_dir}/{os.urandom(4).hex()}"
        job = "#!/bin/sh\\n#SBATCH --account=ml --partition=batch --time=5 --output=log-%%j.out\\nsrun python3 train.py\\n"
        remote = f"mkdir -p {folder} && cd {folder} && tar xzf - && printf '{job}' > job.sbatch && sbatch --parsable job.sbatch"
        ssh = shlex.join(["ssh", *self.site.ssh_options, "-p", str(self.site.port), f"{self.site.sshd.user}@{self.site.sshd.host}", remote])
        pipeline = f"set -o pipefail; git archive --format=tar HEAD | gzip -1 | {ssh}"
        return run(["bash", "-c", pipeline], self.site.environment(), checkout.path, memory=memory)


class NemoRun(Contender):
    """A NeMo-Run script as its guide writes one: SSHTunnel, SlurmExecutor, GitArchivePackager, detached; its home is its own."""

    name = "NeMo-Run"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        # Its rsync starts whatever `ssh` is on PATH, and has no option for a known_hosts file.
        self._bin = site.folder / "bin"
        self._bin.mkdir(exist_ok=True)
        wrapper = self._bin / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(shutil.which("ssh") or "ssh")} {shlex.join(site.ssh_options)} "$@"\n')
        wrapper.chmod(0o755)

    def forget(self) -> None:
        """A home without experiments, too."""
        super().forget()
        self._nemorun_home = self.job_dir / "nemorun-home"

    def _submit(self, checkout: Checkout, memory: bool) -> Ran:
        environment = self.site.environment(NEMORUN_HOME=str(self._nemorun_home), COLUMNS="200")
        environment["PATH"] = f"{self._bin}:{environment['PATH']}"
        sshd = self.site.sshd
        words = [sshd.host, str(self.site.port), sshd.user, str(sshd.key().path), str(self.job_dir / "remote")]
        return run([str(BIN / "python"), str(PLAIN_NEMORUN), *words], environment, checkout.path, memory=memory)


class Dispatch(Contender):
    """Ours: `nemotron-dispatch submit` in the checkout."""

    name = "nemotron-dispatch"

    def _submit(self, checkout: Checkout, memory: bool) -> Ran:
        environment = self.site.environment(
            BENCH_JOB_DIR=str(self.job_dir),
            DISPATCH_SSH_KEY=self.site.sshd.key().private,
            DISPATCH_SSH_KNOWN_HOSTS=self.site.known_hosts.read_text(),
        )
        return run([str(BIN / "nemotron-dispatch"), "submit", "profile=cluster"], environment, checkout.path, memory=memory)
