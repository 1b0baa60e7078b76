"""What the bytes of a raster file mean: its layout, and its facts.

Everything here decides and never waits. `raster.Raster` is where to begin: it is given bytes of a
TIFF that were fetched anyway, and then answers which block lies where.

A *block* is a tile or a strip of a TIFF: the unit that is compressed, and so read, as a whole.
"""
