"""``nightingale report``: where the morning report lies, or the report on a loopback address."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer
from rich.console import Console

from deploy.command_line.options import ConfigOption

app = typer.Typer(add_completion=False, help="The data-quality report of a night.")
console = Console()


@app.command("report")
def report_command(
    run: Annotated[
        str | None,
        typer.Option("--run", help="Run folder, or its name such as 2026-01-19; unset, the latest report."),
    ] = None,
    config: ConfigOption = None,
    latest: Annotated[bool, typer.Option("--latest", help="The latest report; the default.")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show report and Data Docs on 127.0.0.1 until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port for --serve; 0 takes a free one.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report's facts as JSON.")] = False,
    browse: Annotated[
        bool, typer.Option("--open", help="Open it in this machine's browser (implies --serve).")
    ] = False,
) -> None:
    """Tell where the report of a night lies, print its facts, or show it.

    Example: nightingale report --config site.toml --latest --serve
    """
    from deploy.command_line.runs import find_run
    from deploy.errors import DeployError

    try:
        if run and latest:
            raise DeployError("--latest and --run name two reports; give one of them")
        folder = find_run(run, holding="report/index.html", config=config)
    except DeployError as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    page = folder / "report" / "index.html"
    if as_json:
        typer.echo((page.parent / "report.json").read_text("utf-8"))
    elif not (serve or browse):
        typer.echo(page.resolve())
    if not (serve or browse):
        return
    from validation.report.serving import make_server

    try:
        server = make_server(folder, port=port)
    except OSError as error:
        Console(stderr=True).print(f"[red]error:[/red] port {port}: {error.strerror}", highlight=False)
        raise typer.Exit(2) from None
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    Console(stderr=True).print(f"{folder.name}: {address} (this machine only; Ctrl-C ends)", soft_wrap=True)
    if browse:
        webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
