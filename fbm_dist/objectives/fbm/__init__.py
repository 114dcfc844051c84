"""FBM: foreground, background and motion features, disentangled (Lin et al., 2017). README.md says how."""
