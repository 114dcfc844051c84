"""uNLC in torch tensors, on a GPU or the CPU by the same lines: the method of the room above, over all frames of a shot at once."""
