"""From a trained network to predictions and scores."""
