"""One page, in one file, on which a trained model is explored by hand."""
