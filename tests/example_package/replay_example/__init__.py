"""Extensions of replay: one file each."""
