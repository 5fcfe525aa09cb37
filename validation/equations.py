"""The three equations of a night: nothing is lost between pulling, scoring and writing back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from validation.errors import EquationError


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a night counted, each number taken at another place in the flow.

    Attributes
    ----------
    pulled, accepted, quarantined
        Resources read; resources that left at least one row; resources refused whole.
    eligible, scored, skipped
        Encounters (samples) that the task asks for; that got a score; that got a reason instead.
    confirmed, dead_lettered
        RiskAssessments that the destination holds; that it refused for good.
    """

    pulled: int = 0
    accepted: int = 0
    quarantined: int = 0
    eligible: int = 0
    scored: int = 0
    skipped: int = 0
    confirmed: int = 0
    dead_lettered: int = 0

    def __post_init__(self) -> None:
        negative = [name for name, number in asdict(self).items() if number < 0]
        if negative:
            raise ValueError(f"counts cannot be negative: {', '.join(negative)}")

    def to_dict(self) -> dict[str, int]:
        """Return a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, int]) -> Self:
        """Build counts from :meth:`to_dict`'s result."""
        return cls(**fields)

    @property
    def quarantined_share(self) -> float:
        """Refused resources as a share of the resources pulled; 0 where nothing was pulled."""
        return self.quarantined / self.pulled if self.pulled else 0.0

    @property
    def skipped_share(self) -> float:
        """Skipped encounters as a share of the eligible ones; 0 where none was eligible."""
        return self.skipped / self.eligible if self.eligible else 0.0


@dataclass(frozen=True)
class Equation:
    """One equation with the numbers of this night.

    Attributes
    ----------
    name
        ``resources``, ``encounters`` or ``risk assessments``.
    left, right
        The two sides.
    text
        The equation with names and numbers, for people.
    """

    name: str
    left: int
    right: int
    text: str

    @property
    def holds(self) -> bool:
        """Whether both sides are equal."""
        return self.left == self.right

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {**asdict(self), "holds": self.holds}


_EQUATIONS = (
    ("resources", "pulled", ("accepted", "quarantined")),
    ("encounters", "eligible", ("scored", "skipped")),
    ("risk assessments", "scored", ("confirmed", "dead_lettered")),
)


def check_equations(counts: Counts) -> list[Equation]:
    """Return the three equations of architecture.md with this night's numbers.

    Examples
    --------
    >>> [e.text for e in check_equations(Counts(pulled=5, accepted=4, quarantined=1))][0]
    'pulled 5 = accepted 4 + quarantined 1'
    >>> check_equations(Counts(pulled=5, accepted=3, quarantined=1))[0].text
    'pulled 5 ≠ accepted 3 + quarantined 1 (1 lost)'
    """
    numbers = counts.to_dict()
    equations = []
    for name, left, terms in _EQUATIONS:
        right = sum(numbers[term] for term in terms)
        gap = numbers[left] - right
        sign = "=" if gap == 0 else "≠"
        note = "" if gap == 0 else f" ({gap} lost)" if gap > 0 else f" ({-gap} too many)"
        sides = " + ".join(f"{term.replace('_', '-')} {numbers[term]}" for term in terms)
        equations.append(Equation(name, numbers[left], right, f"{left} {numbers[left]} {sign} {sides}{note}"))
    return equations


def require_equations(counts: Counts) -> list[Equation]:
    """Return :func:`check_equations`'s result.

    Raises
    ------
    EquationError
        If one does not hold, with the text of each broken one.
    """
    equations = check_equations(counts)
    broken = [equation.text for equation in equations if not equation.holds]
    if broken:
        raise EquationError("; ".join(broken))
    return equations
