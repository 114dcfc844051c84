"""What keeps a data set right: verify, repair, scrub."""
