"""``nightingale models``: list, show, compare, promote, shadow, retire, roll back, and write cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.command_line.options import ConfigOption

if TYPE_CHECKING:
    from modelling.registry.records import ModelRecord
    from modelling.registry.registry import Registry

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="The registry of trained models: which one scores, and how it came to.",
)
console = Console()
By = Annotated[str, typer.Option("--by", help="Who decides; recorded.")]
Why = Annotated[str, typer.Option("--why", help="Reason; recorded.")]
Model = Annotated[str, typer.Argument(help="Digest of a model, or its first characters.")]
TaskOption = Annotated[str | None, typer.Option(help="Task; unset, the night's task.")]
SHOWN = (
    "auroc",
    "auprc_average_precision",
    "brier",
    "calibration_slope",
    "calibration_in_the_large",
    "expected_calibration_error",
)


def _registry(config: Path | None) -> tuple[Any, Registry]:
    from deploy.champion import open_registry
    from deploy.settings import load_settings

    settings = load_settings(config)
    return settings, open_registry(settings)


def _spread(interval: dict[str, Any] | None) -> str:
    if not interval or interval["value"] is None:
        return "–"
    if interval["lower"] is None:
        return f"{interval['value']:.3f}"
    return f"{interval['value']:.3f} ({interval['lower']:.3f} to {interval['upper']:.3f})"


def _print_findings(findings: list[dict[str, Any]]) -> None:
    table = Table("Rule", "Holds", "Why")
    for finding in findings:
        table.add_row(finding["rule"], "yes" if finding["passed"] else "NO", finding["reason"])
    console.print(table)


@app.command("list")
def list_command(
    config: ConfigOption = None,
    task: Annotated[str | None, typer.Option(help="Only models of this task.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List the registered models, newest first.

    Example: nightingale models list --config site.toml
    """
    _, registry = _registry(config)
    records = registry.find(task=task)
    if as_json:
        typer.echo(json.dumps([record.to_dict() for record in records], indent=2, sort_keys=True))
        return
    if not records:
        console.print("No model is registered; `nightingale retrain` makes candidates.")
        return
    table = Table("Digest", "State", "Task", "Kind", "Data", "Registered", "AUROC")
    for record in records:
        table.add_row(
            record.digest[:12],
            str(record.state),
            record.task,
            record.kind,
            record.data_version,
            f"{record.registered:%Y-%m-%d %H:%M}",
            _spread(record.metrics.get("auroc")),
        )
    console.print(table)


@app.command("show")
def show_command(
    model: Model,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show a model: where it comes from, how it did, what the promotion rules say, and its history.

    Example: nightingale models show 3f2a9c81d0e4
    """
    from deploy.champion import promotion_rules

    settings, registry = _registry(config)
    record = registry.get(model)
    findings = [finding.to_dict() for finding in registry.judge(record.digest, promotion_rules(settings))]
    history = [change.to_dict() for change in registry.history(digest=record.digest)]
    if as_json:
        fields = {**record.to_dict(), "findings": findings, "history": history}
        typer.echo(json.dumps(fields, indent=2, sort_keys=True, default=str))
        return
    console.print(f"{record.name} {record.version} ({record.kind}), {record.state}", highlight=False)
    for name, value in {
        "Digest": record.digest,
        "Task": record.task,
        "Data": f"{record.data_version}, fingerprint {record.data_fingerprint[:12]}",
        "Code": record.code_version,
        "Catalogue": record.catalogue_digest[:12],
        "Folder": str(registry.objects.path(record.digest)),
    }.items():
        console.print(f"{name:<12}{value}", highlight=False, soft_wrap=True)
    console.print(_metric_table([record]))
    _print_findings(findings)
    changes = Table("When", "What", "Now", "Who", "Why")
    for change in history:
        changes.add_row(change["moment"][:16], change["kind"], change["after"], change["who"], change["why"])
    console.print(changes)


def _metric_table(records: list[ModelRecord]) -> Table:
    from modelling.evaluation.metrics import CLASSIFICATION_METRICS

    table = Table("Held out", *(f"{record.kind} {record.digest[:12]}" for record in records))
    table.add_row(
        "Samples, events",
        *(
            f"{record.evidence.get('samples', '–')}, {record.evidence.get('events', '–')}"
            for record in records
        ),
    )
    for name in SHOWN:
        table.add_row(
            CLASSIFICATION_METRICS[name], *(_spread(record.metrics.get(name)) for record in records)
        )
    return table


@app.command("compare")
def compare_command(
    first: Model,
    second: Annotated[str, typer.Argument(help="Another model.")],
    config: ConfigOption = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of mapped tables with outcomes: score both there and compare them in pairs."
        ),
    ] = None,
) -> None:
    """Compare two models: what was measured of each, and with --data a paired bootstrap on the same patients.

    Example: nightingale models compare 3f2a9c81 90b7d1aa --data mapped/
    """
    _, registry = _registry(config)
    records = [registry.get(first), registry.get(second)]
    console.print(_metric_table(records))
    if data is None:
        if records[0].data_fingerprint != records[1].data_fingerprint:
            console.print("They were measured on different data; --data compares them on the same patients.")
        return
    from modelling.evaluation.pairs import compare_folders

    differences = compare_folders([registry.folder(record.digest) for record in records], data)
    table = Table("First minus second", "Difference", "p")
    for name, interval in differences.items():
        p = interval["p_value"]
        table.add_row(name, _spread(interval), "–" if p is None else f"{p:.3f}")
    console.print(table)


@app.command("promote")
def promote_command(model: Model, by: By, why: Why, config: ConfigOption = None) -> None:
    """Make a model champion, if every promotion rule holds; refuses with the reason otherwise (exit code 2).

    Example: nightingale models promote 3f2a9c81 --by "Dr A. Example" --why "better on 2026 data"
    """
    from deploy.champion import now, promotion_rules
    from modelling.errors import PromotionRefusedError

    settings, registry = _registry(config)
    try:
        record, findings = registry.promote(model, rules=promotion_rules(settings), by=by, why=why, now=now())
    except PromotionRefusedError as error:
        _print_findings([finding.to_dict() for finding in error.findings])  # type: ignore[attr-defined]
        raise
    _print_findings([finding.to_dict() for finding in findings])
    console.print(f"{record.digest[:12]} scores {record.task} from the next night on.", highlight=False)


@app.command("rollback")
def rollback_command(by: By, why: Why, task: TaskOption = None, config: ConfigOption = None) -> None:
    """Bring back the champion before the present one; its scores are the former ones, bit for bit.

    Example: nightingale models rollback --by "Dr A. Example" --why "alert rate doubled"
    """
    from deploy.champion import now

    settings, registry = _registry(config)
    name = task or settings.night.task
    record = registry.rollback(name, by=by, why=why, now=now())
    which = "the shipped weights score" if record is None else f"{record.digest[:12]} scores"
    console.print(f"{which} {name} from the next night on.", highlight=False)


@app.command("shadow")
def shadow_command(model: Model, by: By, why: Why, config: ConfigOption = None) -> None:
    """Let a model score every night beside the champion, without writing to the record.

    Example: nightingale models shadow 3f2a9c81 --by "Dr A. Example" --why "watch for two weeks"
    """
    from deploy.champion import now

    _, registry = _registry(config)
    record = registry.shadow(model, by=by, why=why, now=now())
    console.print(f"{record.digest[:12]} scores {record.task} in the shadow.", highlight=False)


@app.command("retire")
def retire_command(model: Model, by: By, why: Why, config: ConfigOption = None) -> None:
    """Take a model out of use; its folder stays.

    Example: nightingale models retire 3f2a9c81 --by "Dr A. Example" --why "superseded"
    """
    from deploy.champion import now

    _, registry = _registry(config)
    record = registry.retire(model, by=by, why=why, now=now())
    console.print(f"{record.digest[:12]} is {record.state}.", highlight=False)


@app.command("card")
def card_command(
    model: Model,
    config: ConfigOption = None,
    out: Annotated[Path | None, typer.Option(help="File to write; unset, the terminal.")] = None,
) -> None:
    """Write a model's card as Markdown, with the items of TRIPOD+AI.

    Example: nightingale models card 3f2a9c81 --out card.md
    """
    from modelling.registry.cards import registered_card

    _, registry = _registry(config)
    record = registry.get(model)
    text = registered_card(registry.folder(record.digest), record, registry.history(digest=record.digest))
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text, encoding="utf-8")
        console.print(f"{out} written", highlight=False)
