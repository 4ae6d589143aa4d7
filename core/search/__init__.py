"""The search for a defense that meets a goal: successive halving on held-out training images (docs/adr/0021)."""
