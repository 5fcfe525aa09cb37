"""``nightingale health``: the last run's state for load balancers and Prometheus."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from deploy.command_line.options import ConfigOption

app = typer.Typer(add_completion=False)


@app.command("health")
def health_command(
    config: ConfigOption = None,
    serve: Annotated[bool, typer.Option("--serve", help="Serve /health and /metrics until Ctrl-C.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 9464,
    longest_age: Annotated[
        float, typer.Option(help="Hours after which a missing run counts as late.")
    ] = 26.0,
) -> None:
    """Say whether the last run is in order and recent; exit code 1 where it is not.

    Example: nightingale health --config site.toml
    """
    import time
    from contextlib import suppress

    from deploy.metrics.health import make_server, read_health
    from deploy.metrics.textfile import FILE
    from deploy.settings import load_settings

    folder = load_settings(config).storage.metrics
    console = Console()
    if serve:
        with make_server(folder, host=host, port=port, longest_age=longest_age * 3600) as server:
            console.print(f"http://{host}:{server.server_address[1]}/health and /metrics; Ctrl-C ends it")
            with suppress(KeyboardInterrupt):
                server.serve_forever()
        return
    health = read_health(folder / FILE, now=time.time(), longest_age=longest_age * 3600)
    age = "" if health.age_seconds is None else f", ended {health.age_seconds / 3600:.1f} h ago"
    console.print(f"{health.status}{age}")
    raise typer.Exit(0 if health.status == "ok" else 1)
