"""What every stage leans on: the fx graph, and how it is built, copied, checked, widened and printed."""
