"""Experiments of many training runs: hyperparameter sweeps, comparisons of runs, and the tables of the paper."""
