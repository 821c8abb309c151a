"""Procedural videos: drawn by programs, for the demo and the tests."""
