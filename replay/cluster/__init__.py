"""One run over many machines: a coordinator plans the run, and each agent sends a share (docs/cluster.md).

messages    the messages between them, with a version
protocol    the rules of both sides, as state machines without sockets or clocks
clock       the offset between two clocks, and its error
"""
