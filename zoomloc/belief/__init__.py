"""What is concluded from scores. No torch, no disk.

Reading order: ``discs`` (ground that a disc covers), ``posterior`` (a partition of the region
that sums to 1), ``search`` (Scorer, and which nodes are opened), ``partition`` (what was found, as
posteriors), ``calibration`` (what scores are worth), ``metrics`` (errors in metres, recall,
intervals, chance).
"""
