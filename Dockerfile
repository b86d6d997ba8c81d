# What a worker needs to run any stage. Snakemake sends the workflow itself, so the image changes only with the lock file:
#   docker build --tag REGISTRY/latent-rebalance:TAG . && docker push REGISTRY/latent-rebalance:TAG
# PyTorch brings CUDA along; the node needs NVIDIA's driver and container toolkit alone.
FROM python:3.11-slim

# Compiling networks for a GPU asks for a C compiler.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

COPY requirements.lock /tmp/
RUN pip install --no-cache-dir --requirement /tmp/requirements.lock snakemake-storage-plugin-s3==0.3.6

WORKDIR /workdir
