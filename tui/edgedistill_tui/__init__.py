"""A terminal chat over an edgedistill bundle: answers stream in, reasoning folds away, speed and memory stay in sight."""
