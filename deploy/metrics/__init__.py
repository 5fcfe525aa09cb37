"""What a run leaves for those who watch it: Prometheus metrics, a health page, structured logs; aggregates only."""
