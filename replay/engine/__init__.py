"""Runs, from preparation to the saved result.

`prepare` makes a run of a trace and a scenario. Lanes send on time, and a Trio nursery feeds and watches them.

prepare     from a trace and a scenario to a run: what commands and the library call
nursery     one run: its tasks, and how it ends
run_state   the state that tasks share; the run folder and the memory of lanes
target_runs one target's share of a run
watch       signals, the circuit breaker, lanes that must end
blocking    Trio for programs that do not use Trio
"""

from .prepare import Prepared, prepare, run

__all__ = ["Prepared", "prepare", "run"]
