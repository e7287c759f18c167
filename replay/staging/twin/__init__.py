"""The twin: services, their dependencies and their limits, declared in TOML and run on loopback (docs/twin.md)."""

from .reading import parse_twin as parse_twin
from .reading import read_twin as read_twin
from .running import RunningTwin as RunningTwin
from .running import running as running
from .spec import Twin as Twin
