"""What makes soft masks for the frames of a sequence: uNLC, a network, FBM's implicit foreground, and trivial baselines."""
