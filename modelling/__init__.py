"""Feature catalogue, mapping, cohorts, models, training, evaluation and scoring."""
