"""Measures networks in every runtime side by side: speed, peak memory and the share of the machine's peak."""
