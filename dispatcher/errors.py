"""One error tree: what broke → a code, a cause in public words, a next step and an exit code.

Decisions (denied, malformed, pending) are values and live beside what they decide; exceptions mean that something broke.
`CATALOGUE` is the only list of codes: `docs/errors.md` is made from it and a test proves that every code is raised somewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class Exit(IntEnum):
    """What the process tells its caller; documented in `docs/errors.md`."""

    OK = 0
    RUN_FAILED = 1
    USAGE = 2
    CONFIG = 3
    MALFORMED = 4
    DENIED = 5
    GIT = 6
    SSH = 7
    CLUSTER = 8
    GITHUB = 9
    COMPILE = 10
    PENDING = 11
    BUG = 70
    INTERRUPTED = 130


EXITS: Mapping[Exit, str] = {
    Exit.OK: "Done. For a run that was waited for: it passed.",
    Exit.RUN_FAILED: "The run (or the gate) ended, and did not pass.",
    Exit.USAGE: "The words, flags, environment or event file cannot be used.",
    Exit.CONFIG: "Policy, profile or recipe cannot be used; `doctor` found a problem.",
    Exit.MALFORMED: "The command cannot be understood.",
    Exit.DENIED: "The command is understood, and not allowed.",
    Exit.GIT: "The commit could not be fetched, read or packed.",
    Exit.SSH: "No trusted connection to the login node.",
    Exit.CLUSTER: "The login node was reached, but its folder or the scheduler refused.",
    Exit.GITHUB: "GitHub did not do what was asked.",
    Exit.COMPILE: "NeMo-Run did not render the job.",
    Exit.PENDING: "The run or the gate that was asked about has not ended yet.",
    Exit.BUG: "A bug in nemotron-dispatch.",
    Exit.INTERRUPTED: "Ended from outside (Ctrl-C). A job that was submitted goes on.",
}


@dataclass(frozen=True)
class Kind:
    """One entry of the catalogue: which family (exit code), what it means, and what to do when nothing better is known."""

    exit: Exit
    meaning: str
    next_step: str


class DispatchError(Exception):
    """Something broke. `code` is a key of `CATALOGUE`; `cause` and `next_step` may be shown in public: no secrets in them."""

    def __init__(self, code: str, cause: str, next_step: str | None = None) -> None:
        super().__init__(cause)
        kind = CATALOGUE[code]
        self.code = code
        self.cause = cause
        self.next_step = next_step or kind.next_step
        self.exit = kind.exit
        self.job_may_exist = False
        """Set where it broke so late that the scheduler may have a job all the same (`JOB_MAY_EXIST`)."""


class ConfigError(DispatchError):
    """The policy, a profile or a recipe cannot be used."""


class GitError(DispatchError):
    """The commit could not be fetched, read or packed."""


class SshError(DispatchError):
    """No trusted, authenticated connection to the cluster's login node."""


class ClusterError(DispatchError):
    """The login node was reached, but the run's folder or the scheduler refused."""


class CloudError(DispatchError):
    """An executor's API was not reached, or did not do what was asked."""


class ForgeError(DispatchError):
    """GitHub did not do what was asked."""


class CompileError(DispatchError):
    """NeMo-Run could not render the job."""


class InputError(DispatchError):
    """What the caller handed over (event file, environment, flags) cannot be used."""


CATALOGUE: dict[str, Kind] = {
    # policy, profiles, recipes
    "config.missing": Kind(
        Exit.CONFIG, "A file that is needed does not exist.", "Add it: `nemotron-dispatch init` writes one, `docs/install.md` explains it."
    ),
    "config.syntax": Kind(Exit.CONFIG, "The file is not valid YAML or TOML.", "Fix the line that is named."),
    "config.invalid": Kind(
        Exit.CONFIG,
        "A key or a value is not allowed there.",
        "Fix the line that is named; `docs/policy.md` and `docs/profiles.md` list every key.",
    ),
    "config.no-config": Kind(
        Exit.CONFIG,
        "A configuration that is named is not in the commit.",
        "Name another one with `config=`, or correct `config` of the recipe, or `defaults` of the file.",
    ),
    "config.extends-cycle": Kind(Exit.CONFIG, "Profiles extend each other in a circle.", "Remove one `extends`."),
    "config.env-not-listed": Kind(
        Exit.CONFIG, "`${oc.env:NAME}` asks for a name that the policy does not list.", "Add the name to `env:` in `.github/dispatch.yml`."
    ),
    "config.env-unset": Kind(
        Exit.CONFIG,
        "`${oc.env:NAME}` asks for a variable that is not set on the runner.",
        "Set it in the workflow's `env:`, or give a default: `${oc.env:NAME,default}`.",
    ),
    # events
    "input.event": Kind(
        Exit.USAGE,
        "The event file is not the payload that its event name promises.",
        "Look at `GITHUB_EVENT_NAME` and `GITHUB_EVENT_PATH`; under GitHub Actions both are set by the runner.",
    ),
    # inputs
    "input.event-file": Kind(
        Exit.USAGE,
        "The event file is missing, too large or not JSON.",
        "Under GitHub Actions it is there by itself; elsewhere give `--event FILE`.",
    ),
    "input.extras": Kind(
        Exit.USAGE, "The action's input `extras` takes names of extras.", "Write the names that exist, with commas between."
    ),
    "input.retention": Kind(
        Exit.USAGE,
        "The action's input `log-retention-days` takes a number of days.",
        "Correct it, or leave it out: then the repository's setting counts.",
    ),
    "input.flag": Kind(Exit.USAGE, "An input takes true or false.", "Write `true` or `false`."),
    "input.missing": Kind(
        Exit.USAGE, "Something that this command needs was not given.", "`nemotron-dispatch COMMAND --help` says where it comes from."
    ),
    "input.answer": Kind(
        Exit.USAGE, "An answer to one of `init`'s questions cannot be used.", "`nemotron-dispatch init --help` says what each flag takes."
    ),
    "input.file-exists": Kind(
        Exit.USAGE,
        "A file that `init`, `profile convert` or `profile import` would write is there already, and is different.",
        "Look at the difference; `init --force` replaces the file.",
    ),
    "input.working-folder": Kind(
        Exit.USAGE, "In a workflow only commits run.", "Leave `--working-folder` out; it is for a person at a terminal."
    ),
    "input.not-remembered": Kind(
        Exit.USAGE, "There is no such recipe or metric to look back at.", "`nemotron-dispatch history` shows what there is."
    ),
    "input.plot": Kind(Exit.USAGE, "A plot can only be an SVG or a PNG file.", "Name one: `--plot loss.svg` or `--plot loss.png`."),
    "input.not-written": Kind(Exit.USAGE, "A file cannot be written.", "Look at the rights of the folder, and at the space on the disk."),
    # git
    "git.not-found": Kind(Exit.GIT, "git cannot be started.", "Install git 2.31 or newer, or put it on PATH."),
    "git.cache": Kind(Exit.GIT, "The folder for fetched objects cannot be written.", "Name another cache folder, or none."),
    "git.bad-sha": Kind(Exit.GIT, "That is not the full SHA of a commit.", "Give the 40 hex digits of a commit, not a branch or a tag."),
    "git.bad-url": Kind(Exit.GIT, "The repository's address cannot be used.", "Give an https:// or ssh address."),
    "git.bad-path": Kind(
        Exit.GIT,
        "A path leads out of the repository, or a file is not below its `relative_path`.",
        "Write it relative to the repository's top folder, without `..`.",
    ),
    "git.commit-missing": Kind(
        Exit.GIT,
        "The repository does not have that commit, or not all of it.",
        "Push the commit; after a force-push, comment again so that the new head is taken.",
    ),
    "git.denied": Kind(
        Exit.GIT,
        "The repository does not exist, or the token cannot read it.",
        "Check its name, and give the job `contents: read`; another private repository needs a token that can read it.",
    ),
    "git.moved": Kind(
        Exit.GIT, "The repository has another address now, and tokens do not follow redirections.", "Use its present address."
    ),
    "git.fetch-failed": Kind(
        Exit.GIT, "Fetching from the repository failed, several times where that can help.", "Read git's words; then try again."
    ),
    "git.timeout": Kind(Exit.GIT, "The repository took too long.", "Try again, or check the runner's network and proxy."),
    "git.corrupt": Kind(
        Exit.GIT, "An object is damaged: its content does not fit its id.", "Delete the checkout or the cache folder, and run again."
    ),
    "git.unsafe-tree": Kind(
        Exit.GIT,
        "The commit has names that would be dangerous to unpack.",
        "Nothing was sent. Ordinary tools do not write such trees: look closely at who made the commit.",
    ),
    "git.no-subpath": Kind(Exit.GIT, "The commit has no folder of that name.", "Correct `subpath` in the profile."),
    "git.nothing-packed": Kind(Exit.GIT, "`include_pattern` chooses no file of the commit.", "Correct the patterns, or leave them out."),
    "git.clash": Kind(
        Exit.GIT,
        "Parts of the package want the same place: a file of one would lie in a file or a symbolic link of another.",
        "Give the parts folders of their own: leave `extract_at_root` out, or choose other patterns.",
    ),
    "git.submodule": Kind(
        Exit.GIT,
        "A submodule cannot be packed.",
        "Correct its url in .gitmodules (https, or relative), or set `include_submodules: false`.",
    ),
    "git.too-big": Kind(
        Exit.GIT, "The commit has more than is ever packed or read.", "Pack less of it with `subpath` or `include_pattern`."
    ),
    "git.changed": Kind(Exit.GIT, "A file of the working folder changed while it was packed.", "Ask again when nothing writes there."),
    "git.not-text": Kind(Exit.GIT, "A file that should be text is not UTF-8.", "Save it as UTF-8."),
    # NeMo-Run
    "compile.no-nemo-run": Kind(
        Exit.COMPILE,
        "NeMo-Run cannot be imported.",
        "Install from `requirements.lock`; `pip install nemo_run` alone picks a leptonai that breaks it.",
    ),
    "compile.failed": Kind(
        Exit.COMPILE, "NeMo-Run did not render the job.", "Read its words; `nemotron-dispatch plan` shows the resolved profile."
    ),
    # the ledger
    "cluster.bad-record": Kind(
        Exit.CLUSTER,
        "A record in the ledger is not one that this version wrote.",
        "Look at `runs/<run key>/record.json` in job_dir; a newer version may have written it.",
    ),
    "cluster.set-aside": Kind(
        Exit.CLUSTER,
        "A look at a run broke twice in a row, so it is no longer looked at. Where its record says where, its end is reported as failed.",
        "Look at `runs/<run key>` in job_dir, and report what is named: one run's files should not be able to do that. Then run it again.",
    ),
    # the way to the login node
    "ssh.no-key": Kind(
        Exit.SSH, "There is no key to log in with.", "Set DISPATCH_SSH_KEY from a secret; its public half belongs on the cluster."
    ),
    "ssh.key-unreadable": Kind(
        Exit.SSH, "The private key cannot be read.", "Paste the whole file, from `-----BEGIN` to the end of the `-----END` line."
    ),
    "ssh.key-needs-passphrase": Kind(
        Exit.SSH, "The private key is encrypted.", "Set DISPATCH_SSH_PASSPHRASE, or use a key without passphrase."
    ),
    "ssh.key-wrong-passphrase": Kind(
        Exit.SSH, "The passphrase does not open the key.", "Check DISPATCH_SSH_PASSPHRASE: it belongs to this very key."
    ),
    "ssh.certificate": Kind(
        Exit.SSH, "The certificate does not fit the key.", "Give the content of `…-cert.pub` that was signed for this key."
    ),
    "ssh.agent": Kind(Exit.SSH, "The SSH agent cannot be asked.", "Start it and add a key, or set DISPATCH_SSH_KEY."),
    "ssh.host-key-unknown": Kind(
        Exit.SSH, "The host is not in known_hosts.", "Put its key into DISPATCH_SSH_KNOWN_HOSTS after checking it with the administrators."
    ),
    "ssh.host-key-changed": Kind(
        Exit.SSH,
        "The host shows another key than the known one: it was set up anew, or somebody is in between.",
        "Do not connect. Ask the cluster's administrators; when they confirm the new key, replace it in known_hosts.",
    ),
    "ssh.host-key-revoked": Kind(Exit.SSH, "The host shows a revoked key.", "Do not connect. Ask the cluster's administrators."),
    "ssh.fingerprint": Kind(
        Exit.SSH,
        "The host does not show the key that was expected: nothing was written.",
        "Ask the cluster's administrators. The name or port may be wrong, or somebody may be in between.",
    ),
    "ssh.auth-failed": Kind(
        Exit.SSH,
        "The login node does not accept the key.",
        "Check the user, and that the key's public half is in its authorized_keys there.",
    ),
    "ssh.unreachable": Kind(
        Exit.SSH,
        "The login node cannot be reached.",
        "Check host and port, and that the runner's network may go there; a jump host may be needed.",
    ),
    "ssh.cut": Kind(Exit.SSH, "The connection was cut.", "Run it again: what was begun is found, and nothing happens twice."),
    "cluster.not-writable": Kind(
        Exit.CLUSTER, "job_dir cannot be written to.", "Give the login's user the right to write there, or change `remote_job_dir`."
    ),
    "cluster.disk-full": Kind(
        Exit.CLUSTER,
        "There is no room left in job_dir (disk or quota). Nothing was submitted.",
        "Make room, for instance by deleting old `runs/` and `packages/`, and run it again.",
    ),
    "cluster.no-sbatch": Kind(
        Exit.CLUSTER, "The login node has no `sbatch` in its PATH.", "Check `host`; or put Slurm's folder into the PATH of `~/.bashrc`."
    ),
    "cluster.scheduler-silent": Kind(
        Exit.CLUSTER,
        "The scheduler does not answer, so nobody can tell whether an interrupted submission reached it.",
        "Run it again when the scheduler answers: it finds the job, or submits it.",
    ),
    "cluster.claim-lost": Kind(
        Exit.CLUSTER,
        "Another delivery of the same command took the submission over, because this one was silent for two minutes.",
        "Look at the other delivery; run it again if that one failed.",
    ),
    "cluster.broken-run": Kind(
        Exit.CLUSTER,
        "The run's folder exists, but nothing in it says whose it is: files were deleted from outside.",
        "If no such job runs, delete that folder and run it again.",
    ),
    "cluster.no-such-run": Kind(
        Exit.CLUSTER, "No ledger that the profiles name knows the run.", "`nemotron-dispatch status` lists runs; a key has 16 digits."
    ),
    "cluster.run-unknown": Kind(Exit.CLUSTER, "The ledger has no such run, or the run has no job.", "Check the run key and the profile."),
    "cluster.bad-request": Kind(
        Exit.CLUSTER, "A name contains characters that are not allowed.", "Check account, partition and paths in the profile."
    ),
    "cluster.job-dir": Kind(
        Exit.CLUSTER, "`remote_job_dir` is not an absolute path.", "Write it from the root, without `~` and variables."
    ),
    "cluster.failed": Kind(Exit.CLUSTER, "A step on the login node failed. Nothing was submitted.", "Read its words, then run it again."),
    "cluster.bad-answer": Kind(
        Exit.CLUSTER,
        "The login node answered something else than the dispatcher's remote program.",
        "Log in by hand with the same user: forced commands, a nologin shell or an expired account look like this.",
    ),
    "cluster.timeout": Kind(
        Exit.CLUSTER, "The login node did not answer in time.", "Run it again: what was begun is found, and nothing happens twice."
    ),
    "cluster.cut": Kind(
        Exit.CLUSTER,
        "The remote program ended before it had answered.",
        "Run it again: what was begun is found, and nothing happens twice.",
    ),
    # executors behind an API
    "cloud.extra": Kind(
        Exit.CLUSTER,
        "The client of this executor's API is not installed.",
        "`pip install` what is named, or give the action the extra's name as its input `extras`.",
    ),
    "cloud.credentials": Kind(
        Exit.CLUSTER,
        "The API does not accept the credentials, or there are none.",
        "Give the step the variables that `docs/executors.md` names for this executor.",
    ),
    "cloud.kubectl": Kind(
        Exit.CLUSTER,
        "A program that copies the code to the cluster is missing: `kubectl`.",
        "GitHub's runners have it; put it on the PATH of this one, or leave `workdir_pvc` out when the code is small.",
    ),
    "cloud.unreachable": Kind(
        Exit.CLUSTER,
        "The executor's API did not answer.",
        "Check its address and the runner's network, then run it again: nothing happens twice.",
    ),
    "cloud.failed": Kind(
        Exit.CLUSTER,
        "The executor's API answered with an error.",
        "Its own words say why. Running it again is safe: nothing happens twice.",
    ),
    "cloud.no-answer": Kind(
        Exit.CLUSTER,
        "The process that speaks to the executor's API ended or took too long.",
        "Run it again: a job that was started meanwhile is found.",
    ),
    # GitHub
    "github.unauthorized": Kind(
        Exit.GITHUB, "GitHub does not accept the token.", "Pass a valid token: `github.token`, or one of an app that is installed here."
    ),
    "github.app-key": Kind(
        Exit.GITHUB,
        "The GitHub App's private key cannot be read.",
        "Put the whole `.pem` file that GitHub made for the App into the secret, from `-----BEGIN` to the end of the `-----END` line.",
    ),
    "github.app-not-installed": Kind(
        Exit.GITHUB,
        "The GitHub App is not installed on this repository.",
        "Open the App's settings, choose Install App, and give it this repository.",
    ),
    "github.app-refused": Kind(
        Exit.GITHUB,
        "GitHub does not accept the App.",
        "Check that `app-id` and `app-private-key` are of the same App, that the installation is not suspended, and the runner's clock.",
    ),
    "github.app-permissions": Kind(
        Exit.GITHUB,
        "The GitHub App may do less here than the dispatcher needs.",
        "Give the App `contents: read`, `checks: write` and `pull_requests: write`, then accept that where it is installed.",
    ),
    "github.forbidden": Kind(
        Exit.GITHUB, "The token may not do that.", "Give the job `contents: read`, `checks: write` and `pull-requests: write`."
    ),
    "github.not-found": Kind(
        Exit.GITHUB, "There is no such thing, or the token cannot see it.", "Check the name and what the token may see."
    ),
    "github.invalid": Kind(Exit.GITHUB, "GitHub refused the request as it is.", "GitHub's own words say which value it does not take."),
    "github.rate-limited": Kind(Exit.GITHUB, "The token has used up its requests for now.", "Try again later: deliver the event again."),
    "github.unavailable": Kind(
        Exit.GITHUB, "GitHub answered with an error of its own, several times.", "Look at https://www.githubstatus.com and try again."
    ),
    "github.unreachable": Kind(
        Exit.GITHUB, "There was no answer from GitHub.", "Check the runner's network and proxy, and GITHUB_API_URL."
    ),
    "github.bad-answer": Kind(
        Exit.GITHUB, "GitHub's answer cannot be used.", "Check GITHUB_API_URL; a proxy may answer in GitHub's place."
    ),
}

JOB_MAY_EXIST = frozenset(
    {
        "cloud.unreachable",
        "cloud.failed",
        "cloud.no-answer",
        "ssh.cut",
        "cluster.cut",
        "cluster.timeout",
        "cluster.scheduler-silent",
        "cluster.claim-lost",
        "cluster.bad-answer",
    }
)
"""After these a submission may have reached the scheduler all the same: only the same command again, or the next sweep, can tell."""
