"""How good a set of predictions is, and how sure one may be of it."""

from modelling.evaluation.evaluate import Evaluation, evaluate
from modelling.evaluation.metrics import classification_metrics, paired_difference, regression_metrics
from modelling.evaluation.report import render_html, write_evaluation
from modelling.evaluation.subgroups import sample_groups

__all__ = [
    "Evaluation",
    "classification_metrics",
    "evaluate",
    "paired_difference",
    "regression_metrics",
    "render_html",
    "sample_groups",
    "write_evaluation",
]
