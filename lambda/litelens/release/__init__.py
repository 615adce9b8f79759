"""The entry point of deployments: a hook that tests a new version before it gets traffic."""
