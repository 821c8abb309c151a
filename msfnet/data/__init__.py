"""Datasets: videos with labels and splits, and clips of their frames; knows no network."""
