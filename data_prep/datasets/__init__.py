"""Published data sets as sources of photos, one module each.

Knows nothing of models or of how data sets are downloaded.
"""
