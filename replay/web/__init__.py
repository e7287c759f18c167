"""What every server of pages shares: its socket (`listen`), who may ask for what (`guard`), and its answers (`guarded`)."""
