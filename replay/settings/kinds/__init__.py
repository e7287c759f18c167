"""The kinds of settings. Each kind has its parser, its printer, its valid forms and its JSON Schema."""

from __future__ import annotations

from .kind import Kind as Kind
from .kind import is_kind as is_kind
from .kind import read_setting as read_setting
from .kind import setting_text as setting_text
from .lists import HeaderNames as HeaderNames
from .lists import HostNames as HostNames
from .lists import Methods as Methods
from .lists import Scale as Scale
from .lists import Statuses as Statuses
from .lists import statuses_of as statuses_of
from .quantities import AUTO as AUTO
from .quantities import SEED_MAX as SEED_MAX
from .quantities import Count as Count
from .quantities import Duration as Duration
from .quantities import Factor as Factor
from .quantities import Rate as Rate
from .quantities import Share as Share
from .quantities import Size as Size
from .texts import Acks as Acks
from .texts import MomentText as MomentText
from .texts import MoneyText as MoneyText
from .texts import SizeRange as SizeRange
from .texts import SloText as SloText
from .texts import ZoneText as ZoneText
from .texts import size_range as size_range
