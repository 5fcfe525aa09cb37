"""LOINC identifiers: the check digit."""

from __future__ import annotations


def check_digit(number: str) -> int:
    """Return the Mod 10 check digit of the digits before the hyphen of a LOINC code.

    The rule is that of the LOINC Users' Guide, appendix on check digits (Luhn).

    Parameters
    ----------
    number
        Digits, without hyphen and check digit.

    Examples
    --------
    >>> check_digit("3150")
    0
    >>> check_digit("8867")
    4
    """
    total = 0
    for position, digit in enumerate(reversed(number)):
        value = int(digit) * (2 if position % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return -total % 10
