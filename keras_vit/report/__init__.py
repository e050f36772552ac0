"""Statistics of an evaluation, and the HTML report of a training."""

from keras_vit.report.page import write_report
from keras_vit.report.statistics import Evaluation, wilson_interval

__all__ = ["Evaluation", "wilson_interval", "write_report"]
