"""Networks that read tokens: a transformer, a state space model, a U-Net with ordered levels, and classifiers."""
