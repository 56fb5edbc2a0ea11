"""A look at a run × the ends of its series file, event files and log, and its W&B summary → the record with how far it is, and its results.

Read where something is said anyway: at a run's end, with a change of its state, or when its progress is due. Patterns for the log are the
default branch's as it is now, as the rules for metrics are: nothing that is matched with is taken from the ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dispatcher.eventfile import parse_events
from dispatcher.logmetrics import LOG_BYTES, in_log
from dispatcher.phrases import plural
from dispatcher.policy import Policy
from dispatcher.ports import Cluster, RunFiles
from dispatcher.recipe import Recipe
from dispatcher.record import RunRecord
from dispatcher.results import MAX_METRICS, Value
from dispatcher.series import READ_BYTES, Measured, Progress, chosen, curves_of, parse_series, points_of, progress_of
from dispatcher.slurm import State
from dispatcher.untrusted import redact
from dispatcher.wandbsummary import SUMMARY_BYTES, Summary, parse_summary

# Whoever starts a job through an API gets its log back, and no file.
_WITH_FILES = ("slurm", "local")


def follows(record: RunRecord, policy: Policy) -> bool:
    """Whether there is anything to read while it runs: files that come back, or lines of the log."""
    recipe = policy.recipe(record.recipe)
    if record.executor in _WITH_FILES and (record.series_path or record.tensorboard_path):
        return True
    return isinstance(recipe, Recipe) and recipe.log_metrics is not None


def with_series(
    record: RunRecord, tail: str, files: RunFiles, cluster: Cluster, policy: Policy | None, to_hide: Collection[str]
) -> RunRecord:
    """The record with what its series say. `tail` is the end of its log, redacted, `files` what it was read with."""
    if record.state is not State.RUNNING and not record.state.ended:
        return record
    found = policy.recipe(record.recipe) if policy is not None else None
    recipe = found if isinstance(found, Recipe) else None
    found_in_files, notes = _from_files(record, cluster)
    measured = _clean(found_in_files, to_hide)
    if recipe is not None and recipe.log_metrics is not None:
        in_lines = in_log(_whole_end(record, tail, files, cluster, to_hide), recipe.log_metrics)
        whole = "the log" if files.log_size <= LOG_BYTES else "the log's last megabyte"
        notes += () if in_lines.series else (f"no line of {whole} has what log_metrics looks for",)
        measured = _both(measured, _resumed(in_lines, record))
    preferred = tuple(recipe.metrics) if recipe is not None else ()
    progress = progress_of(measured, record.steps, preferred) or record.progress
    update: dict[str, object] = {"progress": progress, "series_skipped": measured.skipped}
    if record.state is State.SUCCEEDED:  # what went wrong may have kept it from writing
        update["series_notes"] = notes
    if record.state.ended:
        summary = _summary(record, cluster)
        known = {name: value for name, value in summary.metrics.items() if redact(name, to_hide) == name}
        given = _merged(record.results, known, preferred)
        update |= {"curves": curves_of(measured, preferred), "results": _merged(given, measured.last, preferred)}
        update["results_problem"] = record.results_problem or summary.problem
        if progress is None and summary.step is not None:
            update["progress"] = Progress(step=summary.step, total=record.steps)
    return record.model_copy(update=update)


def series_words(record: RunRecord) -> list[str]:
    """What is to be said of its series beside the numbers: lines that could not be read, and where there was less than one expects."""
    count = record.series_skipped
    skipped = f"{plural(count, 'line or record' if count == 1 else 'lines or record')} of the series could not be read"
    if record.progress is None and record.series_path:
        skipped += ' (a line is {"step": 1, "name": "loss", "value": 2.5})'
    return [*([skipped] if count else []), *record.series_notes]


def _from_files(record: RunRecord, cluster: Cluster) -> tuple[Measured, tuple[str, ...]]:
    """What the series file says, and of the event files what only these have; and what is to be said of them."""
    lines, events = _end_of(record, cluster, record.series_path), _end_of(record, cluster, record.tensorboard_path)
    measured = parse_events(events.results, cut=events.results_too_big) if events and events.results else Measured()
    if lines and lines.results:
        measured = _both(parse_series(lines.results, cut=lines.results_too_big), measured)
    notes = (_note(lines, record.series_path, "is not there"), _note(events, record.tensorboard_path, "has no event files"))
    return measured, tuple(note for note in notes if note)


def _note(files: RunFiles | None, path: str, missing: str) -> str:
    """What one does not see by the numbers; empty where there is nothing to be said."""
    name = path.removeprefix("code/")
    if files is not None and files.results is None:
        return f"{name} {missing}"
    return f"only the last megabyte of {name} was read" if files is not None and files.results_too_big else ""


def _end_of(record: RunRecord, cluster: Cluster, path: str) -> RunFiles | None:
    return cluster.fetch(record.run_key, 0, 0, -READ_BYTES, path) if path and record.executor in _WITH_FILES else None


def _summary(record: RunRecord, cluster: Cluster) -> Summary:
    if not record.wandb_summary_path or record.executor not in _WITH_FILES:
        return Summary()
    files = cluster.fetch(record.run_key, 0, 0, SUMMARY_BYTES, record.wandb_summary_path)
    return parse_summary(files.results, files.results_too_big) if files else Summary()


def _clean(measured: Measured, to_hide: Collection[str]) -> Measured:
    """Without names in which a secret stands."""
    series = {name: points for name, points in measured.series.items() if redact(name, to_hide) == name}
    return Measured(series, measured.total, measured.skipped)


def _whole_end(record: RunRecord, tail: str, files: RunFiles, cluster: Cluster, to_hide: Collection[str]) -> str:
    """Of a run that has ended more of the log is worth reading."""
    if not record.state.ended or not files.log_offset:
        return tail
    more = cluster.fetch(record.run_key, -LOG_BYTES, LOG_BYTES, 0, part=record.log_part)
    return redact(more.log.decode("utf-8", "replace"), to_hide) if more else tail


def _resumed(log: Measured, record: RunRecord) -> Measured:
    """What the log of a run's newest job says, after the curves of the jobs before it: each has a log of its own."""
    if not record.earlier_jobs:
        return log
    series = dict(log.series)
    for curve in record.curves:
        newer = series.get(curve.name, ())
        series[curve.name] = (*(point for point in points_of(curve) if not newer or point.step < newer[0].step), *newer)
    return Measured(series, log.total, log.skipped)


def _both(file: Measured, log: Measured) -> Measured:
    """What both say is the first one's: a file has what a log only shows rounded."""
    return Measured({**log.series, **file.series}, file.total or log.total, file.skipped + log.skipped)


def _merged(given: Mapping[str, Value], more: Mapping[str, float], preferred: Collection[str]) -> dict[str, Value]:
    """The results so far, and after them everything that only the others have, as much as a results file may hold."""
    added: dict[str, Value] = {name: more[name] for name in chosen(more, preferred) if name not in given}
    return dict([*given.items(), *added.items()][: max(MAX_METRICS, len(given))])
