"""How jobs are started and awaited: here, or on a cluster. With launch.py all that knows Hydra."""
