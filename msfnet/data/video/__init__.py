"""Video files to frames and back: knows files and decoders, no labels."""
