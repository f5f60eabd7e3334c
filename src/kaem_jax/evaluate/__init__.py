"""Numbers that judge a trained model on data it has not seen."""
