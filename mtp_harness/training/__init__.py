"""The paper's loss and a short loop: enough to make the reference models and small replications."""
