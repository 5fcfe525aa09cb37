"""Clinical scores, logistic regression and gradient boosting: what a deep model has to beat."""
