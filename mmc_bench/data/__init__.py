"""Image sources, the cue contract, the four counterfactual splits, and batches that stay on the device."""
