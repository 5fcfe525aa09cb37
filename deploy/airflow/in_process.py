"""Run a real DAG file once in this process by ``dag.test()``; ``python -m deploy.airflow.in_process``.

Started as a process of its own, because Airflow reads its environment at import and writes much to the terminal.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def run_dag(dag_id: str, conf: dict[str, Any]) -> str:
    """Run the DAG with a configuration and return the final state of the run."""
    from airflow.dag_processing.dagbag import DagBag

    from deploy.airflow.home import DAGS

    bag = DagBag(dag_folder=str(DAGS / f"{dag_id}.py"))
    if bag.import_errors:
        raise SystemExit("\n".join(bag.import_errors.values()))
    dag = bag.dags[dag_id]
    # A run by hand has no deadline; Airflow 3.3's dag.test() fails at the end of a DAG that has one, since it
    # takes the alert's definition for its key.
    dag.deadline = None
    return str(dag.test(run_conf=conf).state)


if __name__ == "__main__":
    state = run_dag(sys.argv[1], json.loads(sys.argv[2]))
    raise SystemExit(0 if state == "success" else 1)
