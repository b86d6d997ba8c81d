"""Operations on image tensors: conversion and transfer, masks, collages, blur, grids and pixel distances."""
