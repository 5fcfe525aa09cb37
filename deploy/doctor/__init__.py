"""``nightingale doctor``: does this site have all that a night needs, and what to do where it has not."""

from deploy.doctor.check import Check, State
from deploy.doctor.examine import examine

__all__ = ["Check", "State", "examine"]
