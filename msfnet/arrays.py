"""Names for the arrays that cross borders, apart from `types` so that the command line starts without numpy."""

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]  # ... H W 3, RGB
Indices = npt.NDArray[np.int64]  # V T or T: numbers of frames
Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
