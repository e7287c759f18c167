"""HTTP/1.1, plain and by TLS.

`protocol` is what the registry finds; `adapter` connects it to a run. `render_rules` turns a scenario into a
`render.RenderSpec`, which `renderer` writes due rows by; `templates` and `recorded_headers` are parts of it.
`session_spec` holds captures and checks. `probe` makes a first handshake, `auth` runs the auth command. Native lanes
send by `replay.lane.native`; `portable` is the same for the portable engine.
"""

from .protocol import Http1

__all__ = ["PROTOCOL"]

PROTOCOL = Http1()
