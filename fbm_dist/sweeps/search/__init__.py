"""How a sweep chooses: spaces, samplers, which trial is next, and which ends early."""
