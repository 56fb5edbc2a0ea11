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
from tests.bench.process import run, settle
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
        for number in range(count):
            for checkout in checkouts:
                _one_round(site, contenders, checkout, rtt, times)
                tidy()
            settle(site.folder)
            times.imports.append(run([str(BIN / "python"), "-c", "import nemo_run"], site.environment(), site.home).seconds)
            times.loads.append(os.getloadavg()[0])
            print(f"  {rtt} ms, {number + 1} of {count}", file=sys.stderr)
    return _section(times, rtts, [int(checkout.megabytes) for checkout in checkouts])


def _one_round(site: Site, contenders: Sequence[Contender], checkout: Checkout, rtt: int, times: Times) -> None:
    for contender in contenders:
        contender.forget()
    for scenario in SCENARIOS:
        if scenario == "one file changed":
            checkout.change()
        for contender in contenders:
            settle(site.folder)
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
            place, where = (slow, size, scenario), f"{slow} ms, {size} MB, {scenario}"
            targets.append(Target(f"{where}: share of NeMo-Run's time", _ratio(times, place), 0.45, "×"))
            bound = mid(times.of(place, GitArchive)) + imported + 0.5
            note = f"{GitArchive.name} + import nemo_run ({imported:.2f} s) + 0.5 s"
            targets.append(Target(where, mid(times.of(place, Dispatch)), bound, "s", note))
    for rtt in rtts:
        where = f"{rtt} ms, {large} MB"
        if large != small:
            pairs = zip(times.of((rtt, large, "again"), Dispatch), times.of((rtt, small, "again"), Dispatch), strict=True)
            longer = mid([ours - other for ours, other in pairs])
            targets.append(Target(f"{where}, again: longer than {small} MB", longer, 0.3, "s"))
        changed = _ratio(times, (rtt, large, "one file changed"))
        targets.append(Target(f"{where}, one file changed: share of NeMo-Run's time", changed, 0.3, "×"))
    most = [max(counts[index] for counts in times.connections) for index in (0, 1)]
    return [*targets, Target("connections per submission", most[0], 1, ""), Target("commands per submission", most[1], 1, "")]
