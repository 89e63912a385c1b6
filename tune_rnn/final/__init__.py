"""The final stage: the search's best configurations are trained again with new seeds, and some stopped trials finished.

The lowest of many losses, each of one seed, is a lucky one: it promises more than the configuration holds (selection
bias). So the runs that chose the candidates do not count in the comparison; only new seeds do, the same for all.
"""
