"""ZenML stacks as YAML, and the applier that brings a ZenML store in line with one."""
