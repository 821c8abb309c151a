"""The paper's layers and those it compares with, one mechanism per file. They import torch and nothing else."""
