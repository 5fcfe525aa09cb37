"""Chest radiographs: archives, choice of frontal views, decoding to eight bits."""
