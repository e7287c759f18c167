"""One run over many machines: a coordinator plans the run, and each agent sends a share (docs/cluster.md).

messages    the messages between coordinator and agents, and the version of the protocol
protocol    the rules of both sides, as state machines without sockets or clocks
clock       the offset between two clocks, and its error
"""
