"""What a run says, for people: in the terminal."""
