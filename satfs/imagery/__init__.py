"""The meaning of a raster file's bytes: its layout, its facts, and how programs read it.

Everything here decides and never waits. `raster.Raster` is where to begin: it is given bytes of a
TIFF that were fetched anyway, and then has the place of each block. `pattern.AccessPattern`
predicts which blocks of one open file are read next.

A *block* is a tile or a strip of a TIFF: the unit that is compressed, and so read, as a whole.
"""
