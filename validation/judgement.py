"""What a judge returns: the rows that may go on, and why the others may not."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from validation.contracts import empty
from validation.reasons import Reason


@dataclass(frozen=True)
class Judgement:
    """The split of one table.

    Attributes
    ----------
    accepted
        Rows that passed every rule, in their former order and with their former columns.
    quarantine
        One row a refused row, in the ``Quarantine`` contract; it holds no value of the row.
    """

    accepted: pl.DataFrame
    quarantine: pl.DataFrame

    @property
    def counts(self) -> dict[str, int]:
        """Refused rows by reason code, most frequent first."""
        by_reason = self.quarantine.group_by("reason").len("n").sort("n", "reason", descending=[True, False])
        return dict(by_reason.iter_rows())


def quarantine_rows(
    refused: pl.DataFrame, *, stage: str, reason: pl.Expr, feature: pl.Expr, whole: bool
) -> pl.DataFrame:
    """Describe refused rows in the ``Quarantine`` contract.

    Parameters
    ----------
    refused
        Rows with ``source_ref`` and, where the table has them, ``source_file``, ``source_line``
        and ``component``.
    reason, feature
        Expressions over ``refused`` that give the reason code and the feature (or null).
    whole
        Whether each row stands for an entire resource.
    """
    schema = empty("quarantine").schema
    columns: dict[str, pl.Expr] = {
        name: pl.col(name) if name in refused.columns else pl.lit(None) for name in schema
    }
    columns |= {"stage": pl.lit(stage), "reason": reason, "feature": feature, "whole": pl.lit(whole)}
    if "detail" not in refused.columns:
        columns["detail"] = pl.lit(None)
    return refused.select(columns[name].cast(dtype).alias(name) for name, dtype in schema.items())


def check_reason_codes(quarantine: pl.DataFrame) -> None:
    """Raise :class:`ValueError` if a quarantine frame holds a code that nobody explained."""
    unknown = set(quarantine["reason"].unique()) - {str(reason) for reason in Reason}
    if unknown:
        raise ValueError(f"{len(unknown)} reason code(s) of the quarantine are not in validation.reasons")
