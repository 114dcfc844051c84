"""prepare: films in, a data set out, exactly once."""
