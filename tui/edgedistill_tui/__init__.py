"""A terminal chat over a bundle: answers stream in, reasoning folds away, speed and memory stay in sight."""
