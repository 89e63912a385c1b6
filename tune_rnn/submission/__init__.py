"""Studies on a cluster that `ray up` started: the command line's side here, and the side of the cluster's head."""
