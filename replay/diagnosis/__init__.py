"""What a run shows of the cause of its harm: which resource of the target gave way first, and which routes share a cause.

`diagnose` reads a run folder and nothing else, so that an old run gets today's rules. A cause is named only with evidence;
otherwise the answer is "cannot tell" (docs/diagnosis.md).

document    the result
course      each objective over time: first breach, recovery, hysteresis, area above the objective
usage       watched figures beside their limits
resources   which of them gave way first
by_route    the latencies of each route over time
shared      routes whose latencies move together
diagnose    puts them together
"""
