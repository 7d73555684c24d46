"""Street photos of any source into the photo table; one module per source.

Knows nothing of imagery.
"""
