"""HTTP apps: telemetry collector, review webhook, development CDN."""
