"""What a file and its readers agree on: errors, names, sizes, metadata, certificate, arguments. Needs no torch."""
