"""What environments, actions, networks and unrolls look like: shapes, dtypes, bounds."""
