"""From a name to addresses, as a client on this machine would: `/etc/hosts`, then DNS as `resolv.conf` says.

The one room with dnspython, which makes and reads the messages; what is asked, in which order and for how long, and
what that cost, is said here.
"""

from .failures import NameFailure
from .lookup import Answer, Query, lookup
from .settings import Settings, read_settings

__all__ = ["Answer", "NameFailure", "Query", "Settings", "lookup", "read_settings"]
