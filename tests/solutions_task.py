"""A log-likelihood task made of HumanEval's own solutions, for runs of several processes."""

TASK = """
task: solutions
class: !function solutions_class.Solutions
custom_dataset: !function mtp_harness.data.humaneval.load
test_split: test
output_type: loglikelihood
doc_to_text: "{{prompt}}"
doc_to_target: "{{canonical_solution}}"
metric_list:
  - metric: perplexity
metadata: {version: 1.0}
"""
TASK_CLASS = """
from lm_eval.api.task import ConfigurableTask


class Solutions(ConfigurableTask):
    def __init__(self, config):
        super().__init__(config={k: v for k, v in config.items() if k != "class"})
"""


def write_task(folder):
    """Write the task `solutions` into a new folder, for `--include_path`."""
    folder.mkdir()
    (folder / "solutions.yaml").write_text(TASK)
    (folder / "solutions_class.py").write_text(TASK_CLASS)
