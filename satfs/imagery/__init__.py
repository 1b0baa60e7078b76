"""What the bytes of a raster file mean: its layout, its facts, and how programs read it.

Everything here decides and never waits. `raster.Raster` is where to begin: it is given bytes of a
TIFF that were fetched anyway, and then answers which block lies where. `pattern.AccessPattern`
predicts which blocks one open file will be asked for next.

A *block* is a tile or a strip of a TIFF: the unit that is compressed, and so read, as a whole.
"""
