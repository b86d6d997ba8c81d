"""All neural networks of the workflow, and the loading and saving of their weights."""
