"""Unsupervised pretraining of video encoders: shards in, a registered encoder and its numbers out."""
