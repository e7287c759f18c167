"""One run over many machines: a coordinator plans the whole, agents send a share each (docs/cluster.md).

messages    what they say to each other, versioned
protocol    the rules of both sides, as state machines without sockets or clocks
clock       the offset between two clocks, and how wrong it may be
"""
