"""From files and lists to clips of frames: knows videos and their labels, and no network."""
