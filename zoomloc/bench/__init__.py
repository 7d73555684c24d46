"""The benchmark: entrants side by side on the same photos, map and training time.

Towns come in as a callable; knows nothing of how they are built.
"""
