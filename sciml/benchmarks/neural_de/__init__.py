"""The suite `neural-de`: neural differential equations that are trained to be easy to solve."""
