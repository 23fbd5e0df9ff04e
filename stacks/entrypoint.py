"""How a container starts its step."""

from zenml.entrypoints import StepEntrypointConfiguration


class LeanStep(StepEntrypointConfiguration):
    """ZenML's entrypoint, but a container imports only what its step uses.

    ZenML's own first imports every library that it has materializers for. What flows between our steps has some
    of its own.
    """

    def run(self) -> None:
        """Run the step."""
        from zenml.integrations.registry import integration_registry

        integration_registry.activate_integrations = lambda: None
        super().run()
