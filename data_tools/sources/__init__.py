"""What goes in: films, folders of frames, lists and tables of them, and what is known about each."""
