"""``nightingale pair``: lend open ECGs and chest films to the ICU stays of a FHIR data set that has none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(add_completion=False)


@app.command("pair", no_args_is_help=True)
def pair_command(
    fhir: Annotated[Path, typer.Option(help="Folder of NDJSON, such as mimic-iv-demo-fhir.")],
    ecgs: Annotated[Path, typer.Option(help="PTB-XL, or a part of it.")],
    films: Annotated[Path, typer.Option(help="NIH ChestX-ray14, or a part of it.")],
    out: Annotated[Path, typer.Option(help="New folder: fhir/, wfdb/, dicom/, and a site.toml.")],
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of stays that get an ECG, and a film.")
    ] = 0.6,
    seed: Annotated[int, typer.Option(help="Seed of who gets what.")] = 0,
) -> None:
    """Pair a FHIR data set with ECGs and films of other people, said so in every object.

    The result exercises software; it says nothing about any patient.

    Example: nightingale pair --fhir mimic-iv-demo-fhir --ecgs ptbxl --films nih-cxr14 --out paired
    """
    from deploy.pairing import pair
    from deploy.pairing.site import write_paired_site

    summary = pair(fhir, ecgs, films, out, share=share, seed=seed, include_source=True)
    config = write_paired_site(out)
    console = Console()
    for name, n in summary.to_dict().items():
        console.print(f"{name:<14}{n:>8,}", highlight=False)
    console.print(f"Next: nightingale night --config {config} --replay icu+48h", highlight=False)
