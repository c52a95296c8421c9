"""The small base model that ships with VisionSuit: its data, training, LoRAs and evaluation.

`python -m benchmarks.demo_model --help` lists the stages. Needs the extra `demo-model` and `npm` (or a folder with the
packages). Stages are resumable: each keeps a checkpoint in the work folder and goes on from it.
"""
