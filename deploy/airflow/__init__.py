"""Airflow on one machine: its settings by environment, its database, and an in-process run of a real DAG."""
