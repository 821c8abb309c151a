"""Several runs side by side: read from their folders, told apart by recipe and scores, drawn as one page."""
