"""Faults on purpose: a scripted loopback hospital with a virtual clock, and the cases that it plays."""
