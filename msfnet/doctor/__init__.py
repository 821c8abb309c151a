"""Checks a dataset before training: its problems, its statistics and the cost of training on it."""
