"""`python -m tests.bench`: measures everything in one run, prints tables and writes `.bench/latest.json`; 1 when a promise is missed."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench import checkout, comments, installation, machine, memory, submissions, sweeps
from tests.bench.contenders import Site
from tests.bench.process import settle
from tests.bench.results import Section, markdown, table
from tests.github_server import GitHubServer
from tests.rig.latency import LatencyProxy
from tests.rig.parts import PartMissing
from tests.rig.slurm import NODES, SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import Stage

ROOT = Path(__file__).parents[2]
SECTIONS = ("submissions", "sweeps", "comments", "memory", "installation")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 all promises kept, 1 one was missed, 2 a part is missing."""
    arguments = _parser().parse_args(argv)
    about = machine.describe()
    sections = []
    try:
        for name in arguments.only or SECTIONS[:-1] + (("installation",) if arguments.installation else ()):
            print(f"{name} …", file=sys.stderr)
            section = MEASURES[name](arguments)
            print(f"\n{markdown(section)}\n", flush=True)
            sections.append(section)
            _write(arguments.output, about, sections)
    except PartMissing as why:
        print(f"Not measured: {why}", file=sys.stderr)
        return 2
    about["load at the end"] = machine.load()
    print(table(("measured on", ""), [*about.items()]))
    _write(arguments.output, about, sections)
    missed = [target.name for section in sections for target in section.targets if not target.passed]
    print(f"\n{len(missed)} promises missed{': ' if missed else ''}{', '.join(missed)}. Written to {arguments.output}.")
    return 1 if missed else 0


def _write(file: Path, about: Mapping[str, str], sections: Sequence[Section]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": about, "sections": {section.title: section.document() for section in sections}}
    file.write_text(json.dumps(document, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="only these parts")
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured; medians are shown (default: 5)")
    parser.add_argument("--rtt", type=int, nargs="+", default=[0, 50, 100], metavar="MS", help="round-trip times (default: 0 50 100)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 55], metavar="MB", help="sizes of the repository (default: 1 55)")
    parser.add_argument("--active", type=int, default=1000, help="active runs that are looked at (default: 1000)")
    parser.add_argument("--large", type=int, metavar="MB", help="measure memory with a repository of this size too, for example 1000")
    parser.add_argument("--installation", action="store_true", help="measure the action's set-up too: downloads 300 MB")
    parser.add_argument("--output", type=Path, default=ROOT / ".bench" / "latest.json", metavar="FILE")
    return parser


# --------------------------------------------------------------------------- the parts, each with a cluster of its own


@contextmanager
def _cluster() -> Iterator[tuple[SlurmRig, Sshd, LatencyProxy, Path]]:
    """A cluster that takes jobs and starts none, so that nobody's jobs compete with what is measured, behind a wire."""
    with SlurmRig() as slurm, Sshd(env=slurm.env) as sshd, LatencyProxy(sshd.port) as wire:
        for node in NODES:
            slurm.set_node(node, "DRAIN")
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            try:
                yield slurm, sshd, wire, Path(name)
            finally:
                settle(Path(name))


def _submissions(arguments: argparse.Namespace) -> Section:
    with _cluster() as (slurm, sshd, wire, folder):
        site = Site(sshd, wire.port, folder)
        checkouts = [checkout.make(folder / f"checkout-{size}", size, wire.port, sshd.user) for size in arguments.sizes]
        return submissions.measure(site, wire, checkouts, arguments.rtt, arguments.runs, slurm.cancel_all)


def _memory(arguments: argparse.Namespace) -> Section:
    with _cluster() as (_, sshd, wire, folder):
        site = Site(sshd, wire.port, folder)
        sizes = [*arguments.sizes, *([arguments.large] if arguments.large else [])]
        return memory.measure(site, [checkout.make(folder / f"checkout-{size}", size, wire.port, sshd.user) for size in sizes])


def _sweeps(arguments: argparse.Namespace) -> Section:
    with _cluster() as (slurm, sshd, wire, folder), GitHubServer() as server:
        return sweeps.measure(Stage(server, sshd, folder, wire.port), slurm, wire, arguments.active, arguments.runs)


def _comments(arguments: argparse.Namespace) -> Section:
    with _cluster() as (_, sshd, wire, folder), GitHubServer() as server:
        return comments.measure(Stage(server, sshd, folder, wire.port), 2 * arguments.runs)


def _installation(arguments: argparse.Namespace) -> Section:
    return installation.measure(arguments.runs)


MEASURES: dict[str, Callable[[argparse.Namespace], Section]] = {
    "submissions": _submissions,
    "sweeps": _sweeps,
    "comments": _comments,
    "memory": _memory,
    "installation": _installation,
}

if __name__ == "__main__":
    raise SystemExit(main())
