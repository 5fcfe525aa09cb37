"""Table contracts, row rules, the gate and the morning report.

This room knows nothing of FHIR or of models: it judges tables.
"""
