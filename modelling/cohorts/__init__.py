"""Who is asked about, when, and what was known then: cohorts, tasks, splits and visibility."""
