"""What the student learns from: a live teacher or its stored logits."""
