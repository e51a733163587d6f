"""Training: order, augmentation, schedule, loop, checkpoints."""
