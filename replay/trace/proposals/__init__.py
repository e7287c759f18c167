"""What a recording shows of sessions: values that responses give out, values that are new for each client, passwords."""

from .find import Proposals, find_proposals
from .rules import Proposed, Rule, propose

__all__ = ["Proposals", "Proposed", "Rule", "find_proposals", "propose"]
