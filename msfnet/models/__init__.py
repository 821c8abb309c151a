"""The networks: backbones, their named variants, and the file that keeps a trained one."""
