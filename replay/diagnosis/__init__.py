"""The cause of harm in a run: which resource of the target gave way first, and which routes share a cause.

`diagnose` reads only a run folder, so that today's rules also apply to an old run. It reports a cause only with
evidence; otherwise the answer is "cannot tell" (docs/diagnosis.md).

document    the result
course      each objective over time: first breach, recovery, hysteresis, area above the objective
usage       watched figures beside their limits
resources   which of them gave way first
by_route    the latencies of each route over time
shared      routes whose latencies move together
diagnose    combines the other modules
"""
