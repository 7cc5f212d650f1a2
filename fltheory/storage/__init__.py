"""Answers on disk: files without any code, of which nothing is run when they are read."""
