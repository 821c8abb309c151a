"""Video files, frame folders and arrays to clips of frames; knows no labels."""
