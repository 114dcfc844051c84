"""A version as a folder of files: pulled whole, with a model card, the tables that measured it and checksums; verified offline."""
