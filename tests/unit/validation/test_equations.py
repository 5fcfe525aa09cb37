from __future__ import annotations

import pytest

from validation.equations import Counts, check_equations, require_equations
from validation.errors import EquationError

BALANCED = Counts(
    pulled=10, accepted=8, quarantined=2, eligible=6, scored=5, skipped=1, confirmed=4, dead_lettered=1
)


def test_a_balanced_night_holds_all_three() -> None:
    assert [e.holds for e in check_equations(BALANCED)] == [True, True, True]
    assert [e.name for e in require_equations(BALANCED)] == ["resources", "encounters", "risk assessments"]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("accepted", "pulled 10 ≠ accepted 7 + quarantined 2 (1 lost)"),
        ("skipped", "eligible 6 ≠ scored 5 + skipped 0 (1 lost)"),
        ("confirmed", "scored 5 ≠ confirmed 3 + dead-lettered 1 (1 lost)"),
    ],
)
def test_a_loss_is_named(field: str, text: str) -> None:
    fields = BALANCED.to_dict()
    broken = Counts.from_dict(fields | {field: fields[field] - 1})
    with pytest.raises(EquationError, match=r"lost") as raised:
        require_equations(broken)
    assert str(raised.value) == text


def test_shares_of_nothing_are_zero() -> None:
    assert Counts().quarantined_share == 0
    assert Counts().skipped_share == 0


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="pulled"):
        Counts(pulled=-1)
