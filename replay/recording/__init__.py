"""Recording live HTTP: a reverse proxy and a mirror receiver.

`framing` reads messages and refuses ambiguous ones, `streams` has the sockets, `listening` accepts connections.
`receiver` answers mirrored requests, `proxy` passes requests on to one service. `recorder` writes what they hand over.
"""
