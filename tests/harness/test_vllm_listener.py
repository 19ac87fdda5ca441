"""What is heard of an engine's outputs, with a stand-in for vLLM's output processor."""

from types import SimpleNamespace

from mtp_harness.decode.vllm_counts import Heard
from mtp_harness.harness.vllm_listener import Listener


class Metrics:
    def __init__(self, **told):
        self.told = told

    def to_dict(self):
        return self.told


def ending(name, tokens, metrics=None, stop=None):
    answer = SimpleNamespace(
        token_ids=tokens, finish_reason="stop", stop_reason=stop, spec_decode_metrics=metrics
    )
    return SimpleNamespace(
        request_id=name, finished=True, prompt_token_ids=[1, 2], outputs=[answer]
    )


class Processor:
    """Cuts outputs as vLLM's does, and forgets requests that ended."""

    def __init__(self, endings):
        names = {"10-c": "10", "9-a": "9"}  # internal name -> the caller's; 9 was asked first
        self.request_states = {k: SimpleNamespace(external_req_id=v) for k, v in names.items()}
        self.endings = endings

    def process_outputs(self, outputs, engine_core_timestamp=None):
        ended = []
        for output in outputs:
            del output.new_token_ids[2:]  # what stands behind the stop string
            if output.request_id in self.endings and output.new_token_ids[-1] == 0:
                del self.request_states[output.request_id]
                ended.append(self.endings[output.request_id])
        return SimpleNamespace(request_outputs=ended)


def output(name, *tokens):
    return SimpleNamespace(request_id=name, new_token_ids=[*tokens])


def test_outputs_are_heard_before_they_are_cut_and_by_request():
    told = Metrics(per_step_accepted=[1], per_step_drafted=[3])
    processor = Processor(
        {"9-a": ending("9", [5, 6, 0], stop="x"), "10-c": ending("10", [7, 8, 0], told)}
    )
    heard = {}
    engine = SimpleNamespace(output_processor=processor)
    with Listener(engine, lambda index, one, what: heard.update({index: (one, what)})):
        processor.process_outputs([output("9-a", 5), output("10-c", 7)], engine_core_timestamp=0)
        processor.process_outputs([output("9-a", 6, 0, 33, 44), output("10-c", 8, 0)])
        processor.process_outputs([output("9-a", 55)])  # a step that had begun before the abort
    (first, a), (second, c) = heard[0], heard[1]
    assert (first.request_id, second.request_id) == ("9", "10")
    assert (a.sizes, a.accepted, a.tokens, a.stop_reason) == ((1, 4), None, (5, 6, 0), "x")
    assert (c.sizes, c.accepted, c.drafted, c.n_prompt) == ((1, 2), (1,), (3,), 2)
    assert isinstance(a, Heard) and 0 <= a.seconds < 60
    assert processor.process_outputs.__func__ is Processor.process_outputs  # put back


def test_an_answer_that_the_prefill_ends_has_metrics_without_steps():
    """vLLM leaves empty lists out of its dictionary."""
    processor = Processor({"9-a": ending("9", [0], Metrics(acceptance_histogram=[0, 0]))})
    heard = []
    with Listener(SimpleNamespace(output_processor=processor), lambda *one: heard.append(one[2])):
        processor.process_outputs([output("9-a", 0)])
    assert (heard[0].sizes, heard[0].accepted, heard[0].drafted) == ((1,), (), ())
