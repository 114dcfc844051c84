"""The motion-mask ConvNet: one frame in, the mask of what moves out (Pathak et al., 2017). README.md says how."""
