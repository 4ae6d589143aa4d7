"""The inner maximisation of adversarial training. One file in this folder is one way to do it; a
defense says which of them it can use.

They differ from ``core.attacks`` in what they are for: an evaluation keeps the first success and lets fooled images
go, training wants the last iterate of every image.
"""
