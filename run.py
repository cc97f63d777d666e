"""Run an analysis on a stage, or sweep over many: `python run.py --help`."""

from olmo_stages.launch import main

if __name__ == "__main__":
    main()
