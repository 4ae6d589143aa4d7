"""Turns untrusted bytes, and named datasets, into safetensors, manifests and memory-mapped arrays.

The only code that touches raw uploads. No torch, nothing of the engine, and nothing is ever unpickled.
"""
