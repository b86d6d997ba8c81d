# The workflow lies under workflow/; this file lets `snakemake` find it from the root of the repository.
include: "workflow/Snakefile"


workflow.default_target = "all"
