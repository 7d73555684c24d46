"""What is concluded from scores. No torch, no disk.

Reading order: ``discs`` (ground that a disc covers), ``posterior`` (a partition of the region
that sums to 1), ``search`` (Scorer, and how its answers become posteriors), ``metrics`` (errors
in metres, recall, intervals, chance).
"""
