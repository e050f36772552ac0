"""Statistics of an evaluation, and HTML reports."""

from keras_vit.intervals import wilson_interval
from keras_vit.report.page import write_report
from keras_vit.report.scores_page import write_scores_report
from keras_vit.report.statistics import Evaluation

__all__ = ["Evaluation", "wilson_interval", "write_report", "write_scores_report"]
