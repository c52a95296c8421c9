"""Model cards and their versions: LoRA and checkpoint files with what a person needs to use them."""
