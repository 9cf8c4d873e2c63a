"""Asking models about video, sound and images: one small file for every family."""
