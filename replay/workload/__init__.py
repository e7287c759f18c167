"""Traffic that was not recorded: transforms of a trace, generated traces, and figures that say how true they are."""
