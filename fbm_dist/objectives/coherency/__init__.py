"""Temporal coherency: Siamese, Quadruplet, SFA and triplet losses on image networks (Redondo-Cabrera and Lopez-Sastre, 2018)."""
