"""The engine: fine-tunes image classifiers against adversarial examples and measures what that gained.

A library over prepared inputs. It knows no web, queue, database or raw upload.
"""

__version__ = "0.1.0"
