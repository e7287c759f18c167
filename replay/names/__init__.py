"""From a name to addresses, as a client on this machine would: the hosts file and DNS, as nsswitch.conf and resolv.conf say.

The only package with dnspython, which makes and reads messages. What is asked, of whom, in which order and for how long, and
what that cost, is decided here.
"""

from .exchange import Query
from .failures import NameFailure
from .lookup import Answer, lookup
from .settings import Settings, read_settings

__all__ = ["Answer", "NameFailure", "Query", "Settings", "lookup", "read_settings"]
