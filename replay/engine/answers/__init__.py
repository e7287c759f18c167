"""The responses that a run keeps, from the lanes' rings to the run folder."""

from .keeper import AnswerKeeper as AnswerKeeper
from .keeper import Source as Source
