"""What to do with a trace: every setting (`settings`), the kinds of their values (`knobs`), how they are read (`file`)."""
