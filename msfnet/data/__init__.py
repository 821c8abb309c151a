"""Datasets: videos with labels and splits, and clips of their frames; independent of networks."""
