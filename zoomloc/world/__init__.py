"""What exists: cells, regions, tile pyramids, photos, answers. No torch."""
