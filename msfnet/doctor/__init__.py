"""A data set examined before it is trained on: what is wrong with it, and what training will cost."""
