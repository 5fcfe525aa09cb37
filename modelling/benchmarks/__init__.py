"""Measured comparisons on open data, each printed by one command."""
