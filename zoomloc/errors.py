"""The errors that a user can mend: one child per thing a user hands in.

Knows nothing of where they are raised; each message says what, where and how to mend it.

ZoomlocError
├── ConfigError      a YAML, a flag or an override
├── ImageryError     a raster, a tile store, a pyramid
├── PhotoError       a street photo or a photo table
├── CheckpointError  weights and what explains them
├── RegionError      the ground that is asked for
└── OutputError      a place to write to (full disk, no permission)
"""


class ZoomlocError(Exception):
    """Something that the user handed in cannot be used; the message says how to mend it."""


class ConfigError(ZoomlocError):
    """A YAML, a flag or an override is wrong."""


class ImageryError(ZoomlocError):
    """A raster, a tile store or a pyramid cannot be used."""


class PhotoError(ZoomlocError):
    """A street photo or a photo table cannot be used."""


class CheckpointError(ZoomlocError):
    """A checkpoint is missing, damaged, or made for something else."""


class RegionError(ZoomlocError):
    """The ground that is asked for cannot be searched."""


class OutputError(ZoomlocError):
    """A result cannot be written."""
