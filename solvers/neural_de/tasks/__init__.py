"""Tasks to train neural differential equations on, with their data and recipes."""
