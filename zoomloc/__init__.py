"""zoomloc: where was this photo taken? Zoom into a satellite map until you stand on the street.

Reading order:

1. ``world``      what exists: cells, regions, pyramids, photos, answers (numpy, no torch)
2. ``belief``     what is concluded: posterior, search, metrics (numpy, no torch, no disk)
3. ``model``      what decides: encoders and the zoom transformer (torch, arrays only)
4. ``checkpoint`` and ``locator``: a trained model meets a region; photo in, ``Answer`` out
5. ``evaluate`` and ``training``: many answers scored; the loop that makes a model
6. ``cli``        the one command, which also reaches ``data_prep`` and ``maps``

This module imports nothing, so that ``import zoomloc`` costs nothing.
"""

__version__ = "0.1.0"
