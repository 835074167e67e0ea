"""Neural ordinary and stochastic differential equations, trained so that they are easy to solve."""
