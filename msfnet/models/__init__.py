"""Networks: backbones, their named variants, the registry, pretrained weights and the files of trained networks."""
