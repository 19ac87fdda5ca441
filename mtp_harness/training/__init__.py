"""The paper's loss and a short training loop, for the reference models and small replications."""
