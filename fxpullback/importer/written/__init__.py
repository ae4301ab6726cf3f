"""What exporters write out in several nodes, found in a file and named again: a function for each pattern."""
