"""Pictures of pages for the documentation, made by a headless Chromium that really logs in and waits."""
