"""Names of the compared image sets."""

#: In the order of the paper's Fig. 12, with the control last.
COMPARED = ("dataset", "samples", "samples_rebalanced", "dataset_rebalanced", "retrained", "control")
