"""Looks up names as a client on this machine would: the hosts file and DNS, as nsswitch.conf and resolv.conf say.

This is the only package that uses dnspython, which builds and parses messages. This package decides which queries are
sent to which server, in which order, for how long and at what cost.
"""

from .exchange import Query
from .failures import NameFailure
from .lookup import Answer, lookup
from .settings import Settings, read_settings

__all__ = ["Answer", "NameFailure", "Query", "Settings", "lookup", "read_settings"]
