"""What is random about training clips, in batches, on the network's device."""
