"""Trained models on disk."""

from modelling.registry.folder import ModelFolder, read_folder, write_folder

__all__ = ["ModelFolder", "read_folder", "write_folder"]
