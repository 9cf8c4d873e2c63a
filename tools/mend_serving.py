"""Make what comes beside PyTorch usable in this environment, where its compiled parts cannot be loaded.

vLLM for CPUs pins a PyTorch without CUDA. The torchvision, torchaudio and torchcodec that pip finds for it may be for
CUDA, whose compiled parts then fail, and with them the import of transformers and of vLLM. What is used of them here
is plain Python (transforms, resampling) or has a substitute (PyAV). Where everything loads, nothing is done.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


def loads(module: str) -> bool:
    """Whether a module can be imported, tried in a process of its own."""
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def main() -> None:
    """Mend what does not load, and say so."""
    site = Path(sysconfig.get_path("purelib"))
    if not loads("torchvision"):
        shutil.copy(Path(__file__).with_name("torchvision_ops.py"), site)
        (site / "torchvision_ops.pth").write_text("import torchvision_ops; torchvision_ops.watch()\n")
        print("torchvision: its operators are declared without kernels")
    if importlib.util.find_spec("torchaudio") and not loads("torchaudio"):
        for file in (site / "torchaudio" / "lib").glob("*torchaudio*.so"):
            file.unlink()
        print("torchaudio: its compiled part is taken out")
    if importlib.util.find_spec("torchcodec") and not loads("torchcodec"):
        subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", "torchcodec"], check=True)
        print("torchcodec: uninstalled; sound is read with PyAV")
    for module in ("transformers.models.qwen2_vl.video_processing_qwen2_vl", "vllm"):
        if not loads(module):
            raise SystemExit(f"{module} cannot be imported in this environment")


if __name__ == "__main__":
    main()
