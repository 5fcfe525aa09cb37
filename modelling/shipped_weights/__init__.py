"""Weights that come with Nightingale, each in a model folder with its card, and how they were made."""
