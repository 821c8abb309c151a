"""Augmentation of training clips, in batches on the device that trains, and a page that shows it."""
