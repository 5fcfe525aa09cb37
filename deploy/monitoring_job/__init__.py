"""Monitoring: scores of past nights, outcomes of a later census, performance, alarms, a page."""
