"""A checkout → a job: three ways, three round-trip times, two sizes; the first time, again, and with one file changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal, get_args

from tests.bench.checkout import Checkout
from tests.bench.contenders import BIN, Contender, Dispatch, GitArchive, NemoRun, Site
from tests.bench.process import run
from tests.bench.results import Section, Target, mid, seconds
from tests.rig.latency import LatencyProxy

Scenario = Literal["first", "again", "one file changed"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
Place = tuple[int, int, Scenario]
"""Round-trip time in ms, size of the repository in MB, what is submitted."""


@dataclass
class Times:
    """Seconds of every run, by place and contender's name; `imports` are those of `python -c 'import nemo_run'`."""

    runs: dict[Place, dict[str, list[float]]] = field(default_factory=dict)
    imports: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    """The machine's load average after each round: what else was going on."""
    connections: set[tuple[int, int]] = field(default_factory=set)
    """(connections, sessions) that the server counted for each of our submissions."""

    def of(self, place: Place, contender: type[Contender]) -> list[float]:
        """One contender's runs in one place, in their order."""
        return self.runs.setdefault(place, {}).setdefault(contender.name, [])


def measure(
    site: Site, wire: LatencyProxy, checkouts: Sequence[Checkout], rtts: Sequence[int], count: int, tidy: Callable[[], None]
) -> Section:
    """Everything in turns, so that whatever else the machine does falls on all of them alike; `tidy` clears the scheduler in between."""
    contenders = [GitArchive(site), NemoRun(site), Dispatch(site)]
    times = Times()
    for rtt in rtts:
        wire.set_rtt(rtt / 1000)
        for checkout in checkouts:
            for number in range(count):
                _one_round(site, contenders, checkout, rtt, times)
                times.imports.append(run([str(BIN / "python"), "-c", "import nemo_run"], site.environment(), site.home).seconds)
                times.loads.append(os.getloadavg()[0])
                print(f"  {rtt} ms, {checkout.megabytes:g} MB, {number + 1} of {count}", file=sys.stderr)
            tidy()
    return _section(times, rtts, [int(checkout.megabytes) for checkout in checkouts])


def _one_round(site: Site, contenders: Sequence[Contender], checkout: Checkout, rtt: int, times: Times) -> None:
    for contender in contenders:
        contender.forget()
    for scenario in SCENARIOS:
        if scenario == "one file changed":
            checkout.change()
        for contender in contenders:
            mark = site.sshd.mark()
            ran = contender.submit(checkout)
            times.of((rtt, int(checkout.megabytes), scenario), type(contender)).append(ran.seconds)
            if isinstance(contender, Dispatch):
                times.connections.add((site.sshd.connections(mark), site.sshd.sessions(mark)))


def _section(times: Times, rtts: Sequence[int], sizes: Sequence[int]) -> Section:
    rows = []
    for place in times.runs:
        plain, nemorun, ours = (mid(times.of(place, kind)) for kind in (GitArchive, NemoRun, Dispatch))
        rtt, size, scenario = place
        told = (seconds(plain), seconds(nemorun), seconds(ours), f"{_ratio(times, place):.2f}")
        rows.append((f"{rtt} ms, {size} MB, {scenario}", *told))
    heads = ("round trip, repository, submission", GitArchive.name, NemoRun.name, Dispatch.name, "ours / NeMo-Run")
    raw: dict[str, object] = {
        "runs": [{"place": list(place), "seconds": by_name} for place, by_name in times.runs.items()],
        "import nemo_run": times.imports,
    }
    raw["load"] = times.loads
    return Section("From start to job id", heads, tuple(rows), tuple(_targets(times, rtts, sizes)), raw)


def _ratio(times: Times, place: Place) -> float:
    """The median of the ratios of runs that were neighbours."""
    pairs = zip(times.of(place, Dispatch), times.of(place, NemoRun), strict=True)
    return median(ours / theirs for ours, theirs in pairs)


def _targets(times: Times, rtts: Sequence[int], sizes: Sequence[int]) -> list[Target]:
    """The issue's promises, for whatever was measured."""
    targets = []
    imported = mid(times.imports)
    slow, small, large = max(rtts), min(sizes), max(sizes)
    for size in sizes:
        for scenario in SCENARIOS[:2]:
            place = (slow, size, scenario)
            ours, where = mid(times.of(place, Dispatch)), f"{slow} ms, {size} MB, {scenario}"
            targets.append(_against(times, place, 0.45, where))
            bound = mid(times.of(place, GitArchive)) + imported + 0.5
            targets.append(Target(where, ours, bound, "s", f"git archive + import nemo_run ({imported:.2f} s) + 0.5 s"))
    for rtt in rtts:
        if large != small:
            bound = mid(times.of((rtt, small, "again"), Dispatch)) + 0.3
            ours = mid(times.of((rtt, large, "again"), Dispatch))
            targets.append(Target(f"{rtt} ms, {large} MB on the cluster already", ours, bound, "s", f"the same with {small} MB + 0.3 s"))
        targets.append(_against(times, (rtt, large, "one file changed"), 0.3, f"{rtt} ms, {large} MB, one file changed"))
    for what, measured in (
        ("connections", max(one for one, _ in times.connections)),
        ("commands", max(one for _, one in times.connections)),
    ):
        targets.append(Target(f"{what} per submission", measured, 1, ""))
    return targets


def _against(times: Times, place: Place, share: float, where: str) -> Target:
    """A share of what NeMo-Run took in neighbouring runs."""
    theirs = mid(times.of(place, NemoRun))
    return Target(where, _ratio(times, place) * theirs, share * theirs, "s", f"{share} × NeMo-Run")
