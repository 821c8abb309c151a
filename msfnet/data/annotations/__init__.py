"""Find the videos of a dataset with their labels, splits and groups; opens no video."""
