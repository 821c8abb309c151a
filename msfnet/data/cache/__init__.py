"""Decoded frames kept on disk: verified, shared, bounded."""
