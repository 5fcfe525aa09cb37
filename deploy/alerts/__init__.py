"""Telling people: a night that failed, scores that are late. Counts and names of tasks, never of patients."""
