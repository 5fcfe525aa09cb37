"""Running the committed suites as a Great Expectations Checkpoint with the pandas engine."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from validation.gate.data_docs import make_readable_offline
from validation.gate.decision import Finding

os.environ["GX_ANALYTICS_ENABLED"] = (
    "False"  # read by great_expectations at import: no telemetry leaves the hospital
)

SUITES = Path(__file__).parent / "suites"

KEYS = {"features": "feature", "wards": "ward", "sources": "source", "drift": "comparison"}
"""Column that names a row of each profile table, shown where a row breaks an expectation."""

SHOWN_ROWS = 8


@dataclass(frozen=True)
class Evaluation:
    """What the Checkpoint found."""

    findings: list[Finding]
    evaluated: int


def read_suites(folder: Path = SUITES) -> tuple[dict[str, dict[str, Any]], str]:
    """Return the committed suites by name, and the SHA-256 over their files."""
    digest = hashlib.sha256()
    suites = {}
    for path in sorted(folder.glob("*.json")):
        content = path.read_bytes()
        digest.update(content)
        suite = json.loads(content)
        suites[suite["name"]] = suite
    return suites, digest.hexdigest()


def evaluate(
    tables: Mapping[str, pl.DataFrame],
    *,
    suites: Mapping[str, dict[str, Any]],
    parameters: Mapping[str, float],
    docs_folder: Path,
    run_name: str,
) -> Evaluation:
    """Run one Checkpoint a table and build the Data Docs.

    Parameters
    ----------
    tables
        Profile tables by suite name; a table without rows is evaluated too (its row count may be expected).
    parameters
        Values of the suites' ``$PARAMETER`` placeholders.
    docs_folder
        Is replaced by Data Docs that need no network.
    """
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="nightingale-gate-") as project:
        warnings.simplefilter("ignore")
        import great_expectations as gx

        context = gx.get_context(mode="file", project_root_dir=project)
        context.variables.progress_bars = {"globally": False}
        source = context.data_sources.add_pandas("profiles")
        findings: list[Finding] = []
        results: dict[str, tuple[int, int]] = {}
        for name, table in tables.items():
            suite = context.suites.add(
                gx.ExpectationSuite(name=name, expectations=suites[name]["expectations"])
            )
            batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
            definition = context.validation_definitions.add(
                gx.ValidationDefinition(name=name, data=batch, suite=suite)
            )
            checkpoint = context.checkpoints.add(
                gx.Checkpoint(
                    name=name,
                    validation_definitions=[definition],
                    result_format={
                        "result_format": "COMPLETE",
                        "unexpected_index_column_names": [KEYS[name]] if name in KEYS else [],
                    },
                )
            )
            outcome = checkpoint.run(
                batch_parameters={"dataframe": table.to_pandas()},
                expectation_parameters=dict(parameters),
                run_id=gx.RunIdentifier(run_name=run_name),
            )
            (validation,) = outcome.run_results.values()
            failed = [result for result in validation.results if not result.success]
            findings += [_finding(name, result) for result in failed]
            results[name] = (len(validation.results) - len(failed), len(validation.results))
        context.build_data_docs()
        shutil.rmtree(docs_folder, ignore_errors=True)
        site = Path(project) / "gx" / "uncommitted" / "data_docs" / "local_site"
        make_readable_offline(site, docs_folder, results=results, name=run_name)
    return Evaluation(findings, sum(evaluated for _, evaluated in results.values()))


def _raised(exception_info: Mapping[str, Any]) -> bool:
    """Tell whether an expectation could not be evaluated, which Great Expectations reports as not met."""
    if "raised_exception" in exception_info:
        return bool(exception_info["raised_exception"])
    return any(bool(info.get("raised_exception")) for info in exception_info.values())


def _finding(suite: str, result: Any) -> Finding:  # an ExpectationValidationResult
    config = result.expectation_config
    kwargs = config.kwargs
    column = kwargs.get("column")
    severity = str(getattr(config.severity, "value", config.severity))
    expected = config.meta.get("notes", {}).get("content", config.type)
    if isinstance(expected, list):
        expected = " ".join(expected)
    subject = f"{suite}.{column}" if column else suite
    if _raised(result.exception_info):
        return Finding(
            suite=suite,
            expectation=config.type,
            column=column,
            severity="critical",
            text=f"{subject} could not be evaluated. Expected: {expected}",
            broken=True,
        )
    return Finding(
        suite=suite,
        expectation=config.type,
        column=column,
        severity=severity,
        text=f"{expected} Found {_observed(suite, column, result.result)}{_allowed(kwargs)}.",
    )


def _observed(suite: str, column: str | None, result: Mapping[str, Any]) -> str:
    if "observed_value" in result:
        return f"{result['observed_value']}"
    rows = result.get("unexpected_index_list") or []
    key = KEYS.get(suite)
    if key and column and rows:
        shown = [_row(row.get(key), row.get(column)) for row in rows[:SHOWN_ROWS]]
        more = f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
        return f"{column}: " + ", ".join(shown) + more
    values = result.get("unexpected_list") or result.get("partial_unexpected_list") or []
    if values and column:
        return f"{column}: " + ", ".join(_number(value) for value in values[:SHOWN_ROWS])
    return f"{result.get('unexpected_count', 'some')} row(s) in {column or suite}"


def _row(name: Any, value: Any) -> str:
    return str(name) if isinstance(value, bool | np.bool_) else f"{name} {_number(value)}"


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:.3g}" if isinstance(value, float) and value % 1 else f"{value:.0f}"


def _allowed(kwargs: Mapping[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and high is not None and low == high:
        return f" (allowed {_number(low)})"
    if high is not None and low in (0, None):
        return f" (allowed up to {_number(high)})"
    if low is not None:
        return f" (at least {_number(low)})"
    return ""
