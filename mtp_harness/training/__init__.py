"""The paper's loss and a short training loop, for the shipped models and small replications."""
