"""Numbers and curves that judge a trained model: on held-out data, on features of its samples, latent by latent."""
