"""The settings as text: the reference page, and a commented file for a new site."""
