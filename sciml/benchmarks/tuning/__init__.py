"""The suite `tuning`: parameters of solvers tuned by bandits while solving."""
