"""What fxpullback compiles, how well and how fast: measured, kept in files, and turned into pages of docs/."""
