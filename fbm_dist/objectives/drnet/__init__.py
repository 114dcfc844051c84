"""DrNet: what stays in a clip (content) and what changes (pose), disentangled (Denton and Birodkar, 2017). README.md says how."""
