"""Raw video in, WebDataset shards with motion masks out. Knows no training."""
