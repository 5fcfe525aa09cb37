"""Settings, the command line, the demo hospital and server launchers: wiring, no domain logic."""
