"""A linear softmax classifier on the features of any family's encoder, frozen or fine-tuned. README.md says how."""
