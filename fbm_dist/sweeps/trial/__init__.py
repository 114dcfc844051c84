"""One trial: the ordinary command of a run, started and watched on the node that Ray gave it."""
