"""Make the pools that the DAGs name, in one process: ``python -m deploy.airflow.pools``.

A task whose pool does not exist waits for ever and says nothing. A pool that exists keeps the site's slots.
"""

from __future__ import annotations


def make_pools() -> list[str]:
    """Create missing pools in the metadata database of the environment; return their names."""
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session

    from deploy.airflow.home import POOLS

    made = []
    with create_session() as session:
        for name, (slots, description) in POOLS.items():
            if Pool.get_pool(name, session=session) is None:
                Pool.create_or_update_pool(name, slots, description, False, session=session)
                made.append(name)
    return made


if __name__ == "__main__":
    print(", ".join(make_pools()) or "all pools are there")
