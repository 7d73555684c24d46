"""Builds what zoomloc.world reads: towns, pyramids, photo tables, splits. No torch."""
