"""Finds session values in a recording and proposes scenario rules for them.

Session values are values that responses issue, values unique to each client, and passwords.
"""

from .find import find_proposals
from .found import Proposals
from .rules import Proposed, Rule, propose

__all__ = ["Proposals", "Proposed", "Rule", "find_proposals", "propose"]
