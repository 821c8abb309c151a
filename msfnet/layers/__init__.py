"""The mechanisms of the paper and its rivals, one a file. They know torch and nothing else."""
