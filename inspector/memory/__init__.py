"""Bytes of the guest: what they mean, where a name lies, and how to find some. Nothing here knows of a screen."""
