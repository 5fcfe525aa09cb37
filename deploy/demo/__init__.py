"""The demo: a synthetic hospital, a model trained on its history, and one night through the real DAG."""
