"""The embedded data set and the whole job on it: a tour that runs anywhere in minutes."""
