"""The network: a graph of nodes, the stages that they host, and the forward pass in which they may fail."""
