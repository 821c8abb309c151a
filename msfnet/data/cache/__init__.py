"""Decoded frames on disk: verified, shared by processes, bounded in size."""
