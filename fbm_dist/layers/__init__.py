"""Blocks that two rooms of fbm_dist/objectives need; a block of one room stays there."""
