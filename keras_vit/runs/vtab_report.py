"""The HTML report of scores on VTAB's tasks."""

import os
from collections.abc import Mapping
from typing import Any

from keras_vit.evaluation.vtab import GROUPS, TASKS, Scores
from keras_vit.report import write_scores_report
from keras_vit.report.bars import Bar, BarGroup
from keras_vit.runs.results import flatten
from keras_vit.tables import percent


def write_vtab_report(
    folder: str | os.PathLike[str],
    scores: Scores,
    model: str,
    settings: Mapping[str, Any],
) -> str:
    """Writes `index.html` with a bar for each task, and the means of the groups.

    Args:
        folder: where to write the page; created if missing.
        scores: the scores.
        model: name of the model.
        settings: settings by name, which may be nested.

    Returns:
        The path of the page.
    """
    mean = scores.mean()
    header = ("Task", "group", "accuracy", "95 % interval", "test examples")
    remarks = [f"{name} is not prepared: {c}" for name, c in scores.missing.items()]
    remarks += [f"{name} has failed: {error}" for name, error in scores.failed.items()]
    return write_scores_report(
        folder,
        [_group(scores, group) for group in GROUPS],
        title=f"VTAB-1k · {model} · {scores.protocol}",
        mean=percent(mean.accuracy),
        mean_name=f"mean accuracy of {mean.count}",
        means={group: str(scores.mean(group)) for group in GROUPS},
        rows=[header, *((n, TASKS[n].group, *numbers) for n, *numbers in scores.rows())],
        remarks=remarks,
        settings={"Settings": flatten(settings)},
    )


def _group(scores, group) -> BarGroup:
    bars = [
        Bar(name, scores.scores[name].accuracy, *scores.scores[name].interval)
        for name, *_ in scores.rows(group)
    ]
    mean = scores.mean(group)
    return BarGroup(f"{group}, mean {mean}", bars, mean.accuracy)
