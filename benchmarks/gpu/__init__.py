"""`make gpu`: what has to be measured on CUDA, in steps that fit into nine minutes."""
