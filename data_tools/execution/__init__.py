"""Who does the work: processes of this machine, or a Ray cluster; a crash or a hang costs one job."""
