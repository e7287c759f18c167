"""Records live HTTP traffic with a reverse proxy or a mirror receiver.

`listening` accepts connections, `streams` reads and writes their sockets, and `framing` finds the messages and
refuses ambiguous ones. `receiver` answers mirrored requests; `proxy` forwards requests to one service. Both pass
what they received to `recorder`, which has it written by another process.
"""
