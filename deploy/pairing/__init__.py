"""Artificial pairing of open ECGs and radiographs with open ICU records; it proves plumbing only."""

from deploy.pairing.pair import PairingSummary, pair

__all__ = ["PairingSummary", "pair"]
