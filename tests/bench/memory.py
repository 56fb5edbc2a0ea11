"""A repository → the memory that submitting it takes, which must not depend on its size."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.checkout import Checkout
from tests.bench.contenders import Contender, Dispatch, NemoRun, Site
from tests.bench.results import Section, Target

BOUND_MB = 250


def measure(site: Site, checkouts: Sequence[Checkout]) -> Section:
    """The first submission, in which everything travels; NeMo-Run beside it up to 100 MB."""
    rows, targets, raw = [], [], []
    for checkout in checkouts:
        contenders: list[Contender] = [Dispatch(site)]
        if checkout.megabytes <= 100:
            contenders.append(NemoRun(site))
        for contender in contenders:
            ran = contender.submit(checkout, memory=True)
            rows.append((f"{checkout.megabytes:g} MB, {contender.name}", f"{ran.largest_mb:.0f} MB", f"{ran.tree_mb:.0f} MB"))
            raw.append({"repository": checkout.megabytes, "who": contender.name, "largest": ran.largest_mb, "all": ran.tree_mb})
            if isinstance(contender, Dispatch):
                name = f"memory for {checkout.megabytes:g} MB"
                targets += [
                    Target(f"{name}, largest process", ran.largest_mb, BOUND_MB, "MB"),
                    Target(f"{name}, all", ran.tree_mb, BOUND_MB, "MB"),
                ]
            contender.forget()
    return Section("Peak memory of a submission", ("repository", "largest process", "all its processes"), tuple(rows), tuple(targets), raw)
