"""The reference client: updater, runtime, router, telemetry, and a simulated fleet."""
