"""Reads clips of frames from video files, frame folders and arrays; independent of labels."""
