"""Retraining: from finished stays to registered candidates, in steps that the DAG and the command line share."""
