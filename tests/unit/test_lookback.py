"""What the ledger remembers, as people see it: the table, the blocks, the object, the plot."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dispatcher.baseline import acceptance_of, history_name, line_of
from dispatcher.configuration import read_policy
from dispatcher.effects.plotting import check_name, png
from dispatcher.errors import Exit, InputError
from dispatcher.lookback import Trail, recall, told
from dispatcher.plot import WIDTH, Words, drawing, svg
from dispatcher.series import Curve
from dispatcher.slurm import State
from dispatcher.world import Outcome
from tests.fakes import NOON, POLICY, Fakes, run_record

NAME = history_name("org/repo", "cluster", "default")


def remembering(*losses: float, policy: str = POLICY, name: str = NAME, **more: float) -> Fakes:
    fakes = Fakes(policy, forge=False)
    for number, loss in enumerate(losses):
        record = run_record(
            run_key=f"{number:016x}", sha=f"{number:040x}", state=State.SUCCEEDED, results={"lr": 0.1, "loss": loss, **more}
        )
        fakes.cluster.remembered.setdefault(name, []).append(line_of(record, NOON - timedelta(days=len(losses) - number)))
    return fakes


def trail(fakes: Fakes, recipe: str | None = None, metric: str | None = None, lines: int = 20, profile: str | None = None) -> Trail:
    found = recall(fakes.world, read_policy(fakes.world), profile, recipe, metric, lines)
    assert isinstance(found, Trail)
    return found


def test_runs_newest_first_with_a_block_for_each() -> None:
    fakes = remembering(2.0, 1.5, 1.0)
    accepted = run_record(run_key="f" * 16, sha="f" * 40, results={"loss": 1.75})
    fakes.cluster.remembered[NAME].append(acceptance_of(accepted, "dana|", "the data is *harder*", NOON))
    ended = told(trail(fakes), fakes.world)
    assert (ended.exit, ended.outputs["decision"], ended.outputs["reason-code"]) == (Exit.OK, "answered", "history")
    lines = ended.summary.splitlines()
    assert lines[0] == "### default on cluster: 3 runs of the default branch, 1 accepted run"
    assert lines[2] == "- loss █▅▁▇ 1 to 2, baseline 1.75"
    rows = [line for line in lines if line.startswith("| ")]
    assert rows[0] == "| when | commit | run | loss | lr |  |"
    assert rows[1] == "| 14:02 UTC | `fffffff` | `ffffffff` | 1.75 | – | accepted by `dana\\|`: the data is \\*harder\\* |"
    assert [row.split(" | ")[3] for row in rows[1:]] == ["1.75", "1", "1.5", "2"]
    assert fakes.steps == ["connect", "cluster.history", "cluster.close"]


def test_one_object_for_machines() -> None:
    fakes = remembering(2.0, 1.5)
    found = json.loads(told(trail(fakes), fakes.world).outputs["result"])
    assert (found["profile"], found["recipe"], found["metrics"]) == ("cluster", "default", ["loss", "lr"])
    assert [run["metrics"]["loss"] for run in found["runs"]] == [2.0, 1.5]
    assert found["baselines"]["loss"]["value"] == 1.75
    assert (found["baselines"]["loss"]["drawn"], found["runs"][0]["curves"]) == (None, [])


def test_the_object_has_the_curves_and_says_which_is_drawn() -> None:
    fakes = remembering(2.0)
    curve = Curve(name="loss", first=1, last=100, values=(9.0, 1.5), points=10_000)
    drawn = run_record(run_key="e" * 16, state=State.SUCCEEDED, results={"loss": 1.5}, curves=(curve,))
    fakes.cluster.remembered[NAME].append(line_of(drawn, NOON))
    found = json.loads(told(trail(fakes), fakes.world).outputs["result"])
    assert found["baselines"]["loss"]["drawn"] == "e" * 16
    assert [Curve.model_validate(item) for item in found["runs"][1]["curves"]] == [curve]


def test_only_so_many_and_only_this_metric() -> None:
    fakes = remembering(*[float(number) for number in range(9)])
    found = trail(fakes, metric="lr", lines=3)
    assert (found.metrics, [entry.sha[-1] for entry in found.entries]) == (("lr",), ["6", "7", "8"])


def test_a_metric_with_a_rule_comes_first() -> None:
    policy = POLICY.replace("{ script: train.py }", "{ script: train.py, metrics: { zeta: { max: 1 } } }")
    assert trail(remembering(1.0, policy=policy, zeta=0.5)).metrics == ("zeta", "loss", "lr")


def test_nothing_remembered_says_where_it_comes_from() -> None:
    fakes = remembering()
    assert "nothing remembered yet" in told(trail(fakes, metric="loss"), fakes.world).summary


def test_what_cannot_be_read_is_said() -> None:
    fakes = remembering(2.0)
    fakes.cluster.remembered[NAME] += ['{"kind":"run","run_', "\x00\ufffd"]
    summary = told(trail(fakes), fakes.world).summary
    assert "1 run of the default branch" in summary
    assert "⚠️ 2 lines in the ledger's `history/` cannot be read" in summary
    del fakes.cluster.remembered[NAME][0]
    assert "nothing that can be read" in told(trail(fakes), fakes.world).summary


@pytest.mark.parametrize(
    ("recipe", "metric", "cause", "step"),
    [("evil", None, "no recipe 'evil'", "Did you mean `eval`?"), (None, "los", "no metric 'los'", "Did you mean `loss`?")],
)
def test_what_is_not_there_is_refused_with_the_nearest_name(recipe: str | None, metric: str | None, cause: str, step: str) -> None:
    with pytest.raises(InputError) as raised:
        trail(remembering(1.0), recipe, metric)
    assert raised.value.code == "input.not-remembered"
    assert cause in raised.value.cause
    assert step in raised.value.next_step


def test_a_profile_that_is_not_there() -> None:
    fakes = remembering(1.0)
    found = recall(fakes.world, read_policy(fakes.world), "clutser", None, None, 20)
    assert isinstance(found, Outcome)
    assert "cluster" in found.summary


@pytest.mark.parametrize(
    "losses", [(1.0,), (2.0, 1.5, 1.0), (1.0, 1.0), (1.7e308, -1.7e308), tuple(float(number) for number in range(200))]
)
def test_a_plot_of_any_values(losses: tuple[float, ...]) -> None:
    shapes = drawing(trail(remembering(*losses), metric="loss", lines=500), "loss")
    root = ElementTree.fromstring(svg(shapes))
    assert len(root.findall("{*}circle")) == len(losses)
    assert "nan" not in svg(shapes)
    assert "inf" not in svg(shapes)
    assert png(shapes).startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 15, 16, 100])
def test_the_oldest_and_the_newest_run_are_labelled_and_no_more_than_fit(count: int) -> None:
    found = trail(remembering(*map(float, range(count))), metric="loss", lines=500)
    days = [f"{entry.at:%Y-%m-%d}" for entry in found.entries]
    shown = [shape.text for shape in drawing(found, "loss") if isinstance(shape, Words) and shape.text in days]
    assert (shown[0], shown[-1], len(shown)) == (days[0], days[-1], min(count, 8))


def test_no_word_of_a_plot_is_markup() -> None:
    found = trail(remembering(1.0))
    hostile = Trail('<script>&"', found.recipe, found.entries, found.metrics, found.baselines)
    assert "<script>" not in svg(drawing(hostile, "loss"))
    with pytest.raises(ValueError, match="no run"):
        drawing(found, "nothing")


def test_labels_end_inside_the_plot() -> None:
    """The newest run's labels are centred at its dot, at the right end; a date has ten characters of some six pixels each."""
    shapes = drawing(trail(remembering(2.0, 1.5, 1.0)), "loss")
    labels = [shape for shape in shapes if isinstance(shape, Words) and shape.anchor == "middle"]
    assert max(label.x for label in labels) > WIDTH / 2
    assert all(label.x + len(label.text) / 2 * label.size * 0.62 <= WIDTH for label in labels)


def test_a_plot_is_svg_or_png() -> None:
    check_name(Path("loss.SVG"))
    with pytest.raises(InputError) as raised:
        check_name(Path("loss.pdf"))
    assert raised.value.code == "input.plot"
