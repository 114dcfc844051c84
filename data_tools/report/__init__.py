"""What a data set looks like: statistics, pages, near-duplicates."""
