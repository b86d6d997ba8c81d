"""Names of the image sets that are compared."""

#: In the order of the paper's Fig. 12, with the control last.
COMPARED = ("dataset", "samples", "samples_rebalanced", "dataset_rebalanced", "retrained", "control")
