"""How satfs scales over the nodes of a cluster: measured on this machine, then modelled."""
