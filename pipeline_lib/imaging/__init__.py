"""Pure operations on image tensors: conversion and transfer, masks, collages, blur, grids, pixel distances."""
