"""Decoded videos in tar archives: written once, streamed by many readers."""
