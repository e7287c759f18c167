"""HTTP/1.1, plain and over TLS.

The registry finds `protocol`; `adapter` connects it to a run. `render_rules` turns a scenario into a
`render.RenderSpec`, which `renderer` uses to write due rows; `templates` and `recorded_headers` are parts of
`RenderSpec`. `session_spec` holds captures and checks. `probe` makes a first handshake, and `auth` runs the auth
command. Native lanes send with `replay.lane.native`, and portable lanes with `portable`.
"""

from .protocol import Http1

__all__ = ["PROTOCOL"]

PROTOCOL = Http1()
