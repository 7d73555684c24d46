"""Where imagery comes from, one module a kind of source; each gives sheets that tiles are made of.

Reading order: sheets (the seam), warp, gdal, rasters; grids, stores; web, fetched, xyz, wmts,
stac, terms; sources (from a config to sheets).
"""
