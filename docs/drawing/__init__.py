"""The drawings of the method's page: `facts` measures, `diagrams` and `charts` draw, `canvas` has pen and colors."""
