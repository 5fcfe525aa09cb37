"""Watching a model after its scores were written: outcomes joined to scores, performance, alarms."""
