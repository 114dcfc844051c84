"""The page of a data set, and what stands on it."""
