"""A look at a run × the end of its series file and of its log → the record with how far it is, its curves, and its last values as results.

Read where something is said anyway: at a run's end, with a change of its state, or when its progress is due. Patterns for the log are the
default branch's as it is now, as the rules for metrics are: nothing that is matched with is taken from the ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dispatcher.logmetrics import LOG_BYTES, in_log
from dispatcher.phrases import plural
from dispatcher.policy import Policy
from dispatcher.ports import Cluster, RunFiles
from dispatcher.recipe import Recipe
from dispatcher.record import RunRecord
from dispatcher.results import MAX_METRICS, Value
from dispatcher.series import READ_BYTES, Measured, chosen, curves_of, parse_series, progress_of
from dispatcher.slurm import State
from dispatcher.untrusted import redact

# Whoever starts a job through an API gets its log back, and no file.
_WITH_FILES = ("slurm", "local")


def follows(record: RunRecord, policy: Policy) -> bool:
    """Whether there is anything to read: a series file that comes back, or lines of the log."""
    recipe = policy.recipe(record.recipe)
    return _has_file(record) or (isinstance(recipe, Recipe) and recipe.log_metrics is not None)


def with_series(
    record: RunRecord, tail: str, files: RunFiles, cluster: Cluster, policy: Policy | None, to_hide: Collection[str]
) -> RunRecord:
    """The record with what its series say. `tail` is the end of its log, redacted, `files` what it was read with."""
    if record.state is not State.RUNNING and not record.state.ended:
        return record
    found = policy.recipe(record.recipe) if policy is not None else None
    recipe = found if isinstance(found, Recipe) else None
    measured = _clean(_from_file(record, cluster) if _has_file(record) else Measured(), to_hide)
    if recipe is not None and recipe.log_metrics is not None:
        text = _whole_end(record, tail, files, cluster, to_hide)
        measured = _both(measured, in_log(text, recipe.log_metrics))
    preferred = tuple(recipe.metrics) if recipe is not None else ()
    progress = progress_of(measured, record.steps, preferred) or record.progress
    update: dict[str, object] = {"progress": progress, "series_skipped": measured.skipped}
    if record.state.ended:
        update |= {"curves": curves_of(measured, preferred), "results": _results(record.results, measured, preferred)}
    return record.model_copy(update=update)


def skipped_words(count: int) -> str:
    """What is said of lines that could not be read; empty when all could."""
    return f"{plural(count, 'line')} of the series could not be read" if count else ""


def _has_file(record: RunRecord) -> bool:
    return bool(record.series_path) and record.executor in _WITH_FILES


def _from_file(record: RunRecord, cluster: Cluster) -> Measured:
    files = cluster.fetch(record.run_key, 0, 0, -READ_BYTES, record.series_path)
    if files is None or files.results is None:
        return Measured()
    return parse_series(files.results, cut=files.results_too_big)


def _clean(measured: Measured, to_hide: Collection[str]) -> Measured:
    """Without names in which a secret stands."""
    series = {name: points for name, points in measured.series.items() if redact(name, to_hide) == name}
    return Measured(series, measured.total, measured.skipped)


def _whole_end(record: RunRecord, tail: str, files: RunFiles, cluster: Cluster, to_hide: Collection[str]) -> str:
    """Of a run that has ended more of the log is worth reading."""
    if not record.state.ended or not files.log_offset:
        return tail
    more = cluster.fetch(record.run_key, -LOG_BYTES, LOG_BYTES, 0)
    return redact(more.log.decode("utf-8", "replace"), to_hide) if more else tail


def _both(file: Measured, log: Measured) -> Measured:
    """What both say is the file's: it has what a log only shows rounded."""
    return Measured({**log.series, **file.series}, file.total or log.total, file.skipped + log.skipped)


def _results(given: Mapping[str, Value], measured: Measured, preferred: Collection[str]) -> dict[str, Value]:
    """The results file's metrics, and after them the last value of everything that only a series has."""
    last = measured.last
    more: dict[str, Value] = {name: last[name] for name in chosen(last, preferred) if name not in given}
    return dict([*given.items(), *more.items()][: max(MAX_METRICS, len(given))])
