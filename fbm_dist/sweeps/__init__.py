"""Sweeps: many pretrainings of one config with other values, by Ray Tune; the best encoder is registered."""
