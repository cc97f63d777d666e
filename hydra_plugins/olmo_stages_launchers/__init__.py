"""What Hydra starts jobs with. It takes launchers from its own name space only."""
