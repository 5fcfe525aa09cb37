"""``nightingale night``: one night, or a replay, of any source."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.command_line.options import ConfigOption
from deploy.command_line.progress import StageBars

app = typer.Typer(add_completion=False)
console = Console()


@app.command("night", no_args_is_help=True)
def night_command(
    night: Annotated[
        str | None, typer.Option(help="Date whose prediction time is scored, such as 2026-01-19.")
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(help="Score every ICU stay this long after its admission, such as icu+48h."),
    ] = None,
    config: ConfigOption = None,
    source: Annotated[
        str | None,
        typer.Option(help="Folder of NDJSON (or with fhir/, wfdb/, dicom/ in it), or a FHIR base address."),
    ] = None,
    waveforms: Annotated[Path | None, typer.Option(help="Root of the WFDB archive.")] = None,
    images: Annotated[Path | None, typer.Option(help="Root of the DICOM folder.")] = None,
    model: Annotated[Path | None, typer.Option(help="Model folder; unset, the shipped weights.")] = None,
    override: Annotated[
        str | None, typer.Option(help="Let a stopped night pass: your name and why; it is recorded.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Another question than the site's.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write into the run folder only; nothing else learns of it.")
    ] = False,
    airflow: Annotated[
        Path | None,
        typer.Option(help="Run through the Airflow DAG, with Airflow's own files in this folder."),
    ] = None,
) -> None:
    """Extract, validate, map, gate, score, write back, report.

    Exit code 1 where an equation fails, a write is dead-lettered, or the gate stops the night; 2 where the
    night could not begin.

    Examples:

      nightingale night --config site.toml --night 2026-01-19

      nightingale night --source mimic-iv-demo-fhir --replay icu+48h
    """
    from deploy.errors import NightFailed, SettingsError
    from deploy.night.accounts import read_json
    from deploy.night.closing import failures
    from deploy.night.run import plan_run
    from deploy.night.summary_table import night_tables
    from deploy.settings import CONFIG_VARIABLE, load_settings

    if (night is None) == (replay is None):
        raise SettingsError("give one of --night DATE and --replay icu+48h")
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config.resolve())
    # The steps read their settings themselves, in this process or in Airflow's: the environment reaches both.
    os.environ |= _environment(source, waveforms, images, model, override)
    settings = load_settings(config)
    run = plan_run(settings, night=night, replay=replay, dry_run=dry_run, task=task)
    with StageBars() as bars:
        if airflow is None:
            from deploy.night.local import run_night

            with suppress(NightFailed):  # the summary says why, below
                run_night(night=night, replay=replay, watch=bars, dry_run=dry_run, task=task)
        else:
            from deploy.night.watched import run_night_dag

            run_night_dag(
                settings,
                config,
                airflow,
                night=night,
                replay=replay,
                watch=bars,
                dry_run=dry_run,
                task=task,
            )
    summary = read_json(run.path / "summary.json")
    if not summary:
        raise NightFailed("the night left no summary; its log says why")
    console.print(night_tables(summary))
    if settings.site.data_note:
        console.print(settings.site.data_note, style="bold")
    console.print(f"Data-quality report   {summary['report']}", highlight=False, soft_wrap=True)
    console.print(f"RiskAssessments       {_where(summary)}", highlight=False, soft_wrap=True)
    found = failures(run, summary)
    for text in found:
        console.print(f"NOT IN ORDER: {text}", style="bold red", highlight=False, soft_wrap=True)
    if found:
        raise typer.Exit(1)


def _where(summary: dict[str, dict[str, str]]) -> str:
    return summary["write_back"].get("location", "none written")


def _environment(
    source: str | None, waveforms: Path | None, images: Path | None, model: Path | None, override: str | None
) -> dict[str, str]:
    """Return the options as environment variables of the settings."""
    found: dict[str, str | Path] = {}
    if source and source.startswith(("http://", "https://")):
        found |= {"SOURCE__KIND": "search", "SOURCE__BASE_URL": source}
    elif source:
        folder = Path(source).resolve()
        inner = folder / "fhir"
        found |= {"SOURCE__KIND": "folder", "SOURCE__FOLDER": inner if inner.is_dir() else folder}
        if inner.is_dir():
            waveforms = waveforms or folder / "wfdb"
            images = images or folder / "dicom"
    if waveforms:
        found["WAVEFORMS__FOLDER"] = waveforms.resolve()
    if images:
        found |= {"IMAGES__KIND": "folder", "IMAGES__FOLDER": images.resolve()}
    if model:
        found["NIGHT__MODEL"] = model.resolve()
    if override:
        found["GATE__OVERRIDE"] = override
    return {f"NIGHTINGALE_{name}": str(value) for name, value in found.items()}
