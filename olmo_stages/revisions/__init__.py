"""Revisions of a stage: how they are spelt, which there are, and the commit behind each.

- `names`: spelling, order of training, a log-spaced choice.
- `hub`: the branches of a repository, and the commit that a branch stands for.
- `listing`: what `olmo-stages revisions` shows.
- `twins`: revisions that were uploaded with the same weights.

Importing it imports neither torch nor huggingface_hub.
"""
