"""batchgen: turns a manifest of prompts into pictures, unattended."""

__version__ = "0.1.0"
