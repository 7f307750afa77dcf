"""How likely data are: the log-density of the probability flow, variational bounds on it, and bits per dimension."""
