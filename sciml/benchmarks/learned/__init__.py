"""The suite `learned`: learned preconditioners against those that are computed."""
