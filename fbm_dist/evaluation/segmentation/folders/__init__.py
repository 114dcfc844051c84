"""Annotated sequences of DAVIS, FBMS-59, VSB100 and SegTrack, read from the folders as they are distributed."""
