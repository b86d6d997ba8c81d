"""Every neural network of the workflow, and the one place where weights come in and go out."""
