"""Load a compiled file and run it: sessions, providers, buffers, packages of machine code."""
