"""What fails: masks drawn in training, masks enumerated with their probabilities, and averages over them."""
