"""GGUF files as what a Hugging Face folder gives: a config, tensors by their names there, a tokenizer, a template."""
