"""One room per family of the papers; the rooms do not know each other."""
